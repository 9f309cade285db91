"""Attention over a short axis of tokens, and the transformer layer made of it."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmer_jax.nn.layers import Dropout, Linear

VERY_NEGATIVE = -1e30  # for masking; finite, so that gradients stay finite

xavier = nn.initializers.xavier_uniform()


class SelfAttention(nn.Module):
    """Multi-head self-attention with one projection to queries, keys and values."""

    heads: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "... S D"], valid: Bool[Array, "... S"] | None = None, dropout=None
    ) -> Float[Array, "... S D"]:
        """`valid` marks the tokens that may be attended to; None: all."""
        size = x.shape[-1]
        hold = functools.partial(_hold_keys, places=(size, 2 * size))
        projected = Linear(3 * size, kernel_init=xavier, hold=hold, name="projection")(x)
        query, key, value = jnp.split(projected, 3, axis=-1)
        out = _attend(query, key, value, self.heads, valid, dropout)
        return Linear(size, name="out")(out)


class CrossAttention(nn.Module):
    """Multi-head attention of one set of tokens over another."""

    heads: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "... S D"], other: Float[Array, "... R D"]
    ) -> Float[Array, "... S D"]:
        size = x.shape[-1]
        # Xavier's of one [D, 3D] matrix, as where a single projection makes all three.
        init = nn.initializers.variance_scaling(0.5, "fan_in", "uniform")
        q = Linear(size, kernel_init=init, name="query")(x)
        hold = functools.partial(_hold_keys, places=(0, size))
        both = Linear(2 * size, kernel_init=init, hold=hold, name="key_value")(other)
        k, v = jnp.split(both, 2, axis=-1)
        return Linear(size, name="out")(_attend(q, k, v, self.heads))


def _hold_keys(bias: Float[Array, " E"], places: tuple[int, int]) -> Float[Array, " E"]:
    """The bias without a gradient of the keys' part, which stands between `places`.

    That gradient is zero, because softmax does not see what all keys share. Rounding leaves 1e-9
    of it, and Adam would make steps of that.
    """
    start, end = places
    return bias.at[start:end].set(jax.lax.stop_gradient(bias[start:end]))


def _attend(q, k, v, heads: int, valid=None, dropout=None):
    """Tokens [..., S, D] of projected queries, keys and values."""
    shape, size = q.shape, q.shape[-1] // heads
    q, k, v = (part.reshape(*part.shape[:-1], heads, size) for part in (q, k, v))
    score = jnp.einsum("...qhd,...khd->...hqk", q, k) / size**0.5
    if valid is not None:
        score = jnp.where(valid[..., None, None, :], score, VERY_NEGATIVE)
    weight = Dropout()(jax.nn.softmax(score, axis=-1), dropout)
    return jnp.einsum("...hqk,...khd->...qhd", weight, v).reshape(shape)


class TransformerLayer(nn.Module):
    """Post-norm: attention and a two-layer ReLU network, each added to its input and normalised."""

    heads: int
    feedforward: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "... S D"], valid: Bool[Array, "... S"] | None = None, dropout=None
    ) -> Float[Array, "... S D"]:
        attended = SelfAttention(self.heads, name="attention")(x, valid, dropout)
        x = nn.LayerNorm(epsilon=1e-5, name="norm1")(x + Dropout()(attended, dropout))
        inner = Dropout()(nn.relu(Linear(self.feedforward, name="linear1")(x)), dropout)
        out = Dropout()(Linear(x.shape[-1], name="linear2")(inner), dropout)
        return nn.LayerNorm(epsilon=1e-5, name="norm2")(x + out)

"""Attention over a short axis of tokens, and the transformer layer made of it."""

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
        projected = Linear(3 * size, kernel_init=xavier, name="projection")(x)
        q, k, v = (
            part.reshape(*part.shape[:-1], self.heads, size // self.heads)
            for part in jnp.split(projected, 3, axis=-1)
        )
        score = jnp.einsum("...qhd,...khd->...hqk", q, k) / (size // self.heads) ** 0.5
        if valid is not None:
            score = jnp.where(valid[..., None, None, :], score, VERY_NEGATIVE)
        weight = Dropout()(jax.nn.softmax(score, axis=-1), dropout)
        out = jnp.einsum("...hqk,...khd->...qhd", weight, v)
        return Linear(size, name="out")(out.reshape(x.shape))


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

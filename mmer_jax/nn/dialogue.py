"""Networks that read a dialogue turn by turn (HARDY-MER; Liu et al. 2025; METHODS §6).

A dialogue is [..., L, D], its turns in order; `keys` [..., L] marks those that may be attended to.
What a turn is not allowed to see has no part in it, whatever stands there; where no turn may be
seen, attention gives 0. Dialogues of any length may be padded to any length, and several may stand
in one row, told apart by `segments` [..., L], a number for each turn's dialogue; None: one only.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmer_jax.nn.attention import VERY_NEGATIVE
from mmer_jax.nn.layers import Dropout, Linear, torch_uniform

UniformLinear = functools.partial(Linear, kernel_init=torch_uniform)


class MaskedAttention(nn.Module):
    """Multi-head attention over turns, then y + MLP(y) with GELU.

    Attributes:
      heads: of the attention; they divide D.
      project: a Linear after the heads are joined (the cross-attention has one).
    """

    heads: int
    project: bool = False

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "... L D"],
        turns: Float[Array, "... L D"],
        keys: Bool[Array, "... L"],
        dropout=None,
        segments: Int[Array, "... L"] | None = None,
    ) -> Float[Array, "... L D"]:
        """What each of `queries` reads in `turns`."""
        size = queries.shape[-1]
        split = (self.heads, size // self.heads)
        q = UniformLinear(size, name="query")(queries)
        k = UniformLinear(size, name="key")(turns)
        v = UniformLinear(size, name="value")(turns)
        q, k, v = (x.reshape(*x.shape[:-1], *split) for x in (q, k, v))
        score = jnp.einsum("...qhd,...khd->...hqk", q, k) / split[1] ** 0.5
        allowed = keys[..., None, None, :]
        if segments is not None:
            allowed &= (segments[..., :, None] == segments[..., None, :])[..., None, :, :]
        weight = jax.nn.softmax(jnp.where(allowed, score, VERY_NEGATIVE), axis=-1)
        weight = jnp.where(allowed, weight, 0.0)  # where no turn is allowed: softmax gave 1 / L
        y = jnp.einsum("...hqk,...khd->...qhd", weight, v).reshape(queries.shape)
        if self.project:
            y = Dropout()(UniformLinear(size, name="out")(y), dropout)
        inner = Dropout()(nn.gelu(UniformLinear(size, name="mlp0")(y), approximate=False), dropout)
        return y + Dropout()(UniformLinear(size, name="mlp1")(inner), dropout)


class _Block(nn.Module):
    """x + attention of x to itself, as a step of `nn.scan`."""

    heads: int

    @nn.compact
    def __call__(self, x, keys, dropout, segments):
        attention = MaskedAttention(self.heads, name="attention")
        return x + attention(x, x, keys, dropout, segments), None


class TurnEncoder(nn.Module):
    """One modality: a Linear to `size`, dropout, and `depth` blocks of self-attention."""

    size: int
    heads: int
    depth: int

    def setup(self):
        self.projection = UniformLinear(self.size)
        self.dropout = Dropout()
        self.blocks = nn.scan(  # one block's program; weights are stacked [depth, ...]
            _Block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,
            length=self.depth,
        )(self.heads)

    def __call__(
        self, x: Float[Array, "... L D"], keys: Bool[Array, "... L"], dropout=None, segments=None
    ) -> Float[Array, "... L h"]:
        return self.attend(self.project(x, dropout), keys, dropout, segments)

    def project(self, x: Float[Array, "... L D"], dropout=None) -> Float[Array, "... L h"]:
        return self.dropout(self.projection(x), dropout)

    def attend(
        self, x: Float[Array, "... L h"], keys: Bool[Array, "... L"], dropout=None, segments=None
    ) -> Float[Array, "... L h"]:
        return self.blocks(x, keys, dropout, segments)[0]


class JointHead(nn.Module):
    """The modalities side by side: hidden = x + dropout(ReLU(Linear x)) -> outputs and features.

    Attributes:
      n_outputs: C.
      n_features: F, the sizes of all modalities together.
      width: of the decoder's hidden layer.
    """

    n_outputs: int
    n_features: int
    width: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "... D"], dropout=None
    ) -> tuple[Float[Array, "... C"], Float[Array, "... F"]]:
        """(logits, the features of every modality as they may have been)."""
        inner = nn.relu(UniformLinear(x.shape[-1], name="hidden")(x))
        hidden = x + Dropout()(inner, dropout)
        logits = UniformLinear(self.n_outputs, name="out")(hidden)
        inner = nn.relu(UniformLinear(self.width, name="decoder0")(hidden))
        return logits, UniformLinear(self.n_features, name="decoder1")(inner)

"""The emotion-intent interaction: what one task's tokens take from the other's."""

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from mmer_jax.nn.attention import CrossAttention
from mmer_jax.nn.layers import merge_rows


class Interaction(nn.Module):
    """Two attentions in a row and a gate (METHODS §7).

    a = attention(own, other), b = attention(own, a), own + b · sigmoid(a + b).

    Attributes:
      heads: of the attentions.
      second: whether there is the second attention; without: own + a · sigmoid(a).
      gate: whether there is the gate; without: own + b.
    """

    heads: int
    second: bool = True
    gate: bool = True

    @nn.compact
    def __call__(
        self, own: Float[Array, "... B S D"], other: Float[Array, "... B S D"]
    ) -> Float[Array, "... B S D"]:
        own, restore = merge_rows(own, inner=2)
        other, _ = merge_rows(other, inner=2)
        found = CrossAttention(self.heads, name="first")(own, other)
        opening = found
        if self.second:
            found = CrossAttention(self.heads, name="second")(own, found)
            opening = opening + found
        return restore(own + (found * jax.nn.sigmoid(opening) if self.gate else found))

"""The emotion-intent interaction: what one task's tokens take from the other's."""

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from mmer_jax.nn.attention import CrossAttention


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
        self, own: Float[Array, "... S D"], other: Float[Array, "... S D"], dropout=None
    ) -> Float[Array, "... S D"]:
        found = CrossAttention(self.heads, name="first")(own, other, dropout)
        opening = found
        if self.second:
            found = CrossAttention(self.heads, name="second")(own, found, dropout)
            opening = opening + found
        return own + (found * jax.nn.sigmoid(opening) if self.gate else found)

"""RAMER's encoder: [CLS] and the feature tokens of one modality through a transformer."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmer_jax.nn.attention import TransformerLayer
from mmer_jax.nn.layers import Linear

small = nn.initializers.normal(0.02)


class TokenEncoder(nn.Module):
    """The transformer's answer at [CLS], projected: the modality's emotion hidden state.

    A vector is one token, a sequence one token a step. Steps past the length never count; steps
    past `max_steps` have the position of the last.

    Attributes:
      size: of tokens and of the hidden state.
      layers, heads, feedforward: of the transformer.
      max_steps: of the longest sequence in training; 0: a vector per utterance.
    """

    size: int
    layers: int
    heads: int
    feedforward: int
    max_steps: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B ... D"], lengths: Int[Array, " B"] | None = None, dropout=None
    ) -> Float[Array, "B h"]:
        tokens = Linear(self.size, name="input")(x if self.max_steps else x[:, None])
        batch, steps, _ = tokens.shape
        last = max(self.max_steps, 1)
        positions = self.param("positions", small, (last + 1, self.size))
        cls = self.param("cls", small, (self.size,)) + positions[0]
        tokens += positions[1 + jnp.minimum(jnp.arange(steps), last - 1)][None]
        tokens = jnp.concatenate([jnp.broadcast_to(cls, (batch, 1, self.size)), tokens], axis=1)
        valid = None
        if self.max_steps:
            assert lengths is not None
            valid = jnp.arange(steps + 1)[None] <= lengths[:, None]
        for i in range(self.layers):
            layer = TransformerLayer(self.heads, self.feedforward, name=f"layer{i}")
            tokens = layer(tokens, valid, dropout)
        return Linear(self.size, name="out")(tokens[:, 0])

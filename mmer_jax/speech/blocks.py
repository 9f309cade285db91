"""What FastSpeech2 is built of: the feed-forward transformer block, positions, masked means.

Sequences are padded; what lies past the end is zero after every block, so that a sequence's result
does not depend on how much it was padded.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmer_jax.nn.attention import SelfAttention
from mmer_jax.nn.layers import Dropout, Linear
from mmer_jax.speech.layers import Convolution, frame_mask


class FeedForwardTransformer(nn.Module):
    """A block of FastSpeech (Ren et al. 2019, §3.1): self-attention, then two convolutions.

    Normalised before each part instead of after it, which needs no warm-up of the learning rate.

    Attributes:
      heads: of the attention.
      width: of the first convolution's kernel; the second's is 1.
      channels: between the convolutions.
    """

    heads: int
    width: int
    channels: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], count: Int[Array, " B"], dropout: float | None = None
    ) -> Float[Array, "B T D"]:
        """`count` is how many steps are real."""
        valid = frame_mask(count, x.shape[1])
        normal = nn.LayerNorm(epsilon=1e-5, name="norm1")(x)
        attended = SelfAttention(self.heads, name="attention")(normal, valid)
        x += Dropout()(attended, dropout)
        inner = nn.LayerNorm(epsilon=1e-5, name="norm2")(x)
        inner = nn.relu(Convolution(self.channels, self.width, name="convolution")(inner, count))
        x += Dropout()(Linear(x.shape[-1], name="out")(inner), dropout)
        return jnp.where(valid[..., None], x, 0.0)


def sinusoids(steps: int, size: int) -> Float[Array, "T D"]:
    """Positions as sines and cosines (Vaswani et al. 2017, §3.5), `size` even."""
    rates = 10_000.0 ** (-jnp.arange(0, size, 2) / size)
    angles = jnp.arange(steps)[:, None] * rates[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def mean_over(values: Float[Array, "B T"], counted: Bool[Array, "B T"]) -> Float[Array, " B"]:
    """Mean over the steps that count; 0 where none does."""
    total = jnp.sum(jnp.where(counted, values, 0.0), axis=1)
    return total / jnp.maximum(jnp.sum(counted, axis=1), 1)

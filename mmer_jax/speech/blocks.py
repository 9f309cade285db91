"""What FastSpeech2 is built of: a convolution over time, the feed-forward transformer block, positions.

Sequences are padded; what lies past the end is zero after every block, so that a sequence's result
does not depend on how much it was padded.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmer_jax.nn.attention import SelfAttention
from mmer_jax.nn.layers import Dropout, Linear


class Convolution(nn.Module):
    """Convolution over time, as wide as the input: shifted copies and one matrix product.

    On a CPU this takes about half the time of XLA's own one-dimensional convolution.

    Attributes:
      features: channels out.
      width: of the kernel in steps, odd.
    """

    features: int
    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T E"]:
        reach, steps = self.width // 2, x.shape[1]
        padded = jnp.pad(x, ((0, 0), (reach, reach), (0, 0)))
        shifted = [padded[:, i : i + steps] for i in range(self.width)]
        return Linear(self.features, name="kernel")(jnp.concatenate(shifted, axis=-1))


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
        self, x: Float[Array, "B T D"], valid: Bool[Array, "B T"], dropout: float | None = None
    ) -> Float[Array, "B T D"]:
        mask = valid[..., None]
        normal = nn.LayerNorm(epsilon=1e-5, name="norm1")(x)
        attended = SelfAttention(self.heads, name="attention")(normal, valid)
        x += Dropout()(attended, dropout)
        inner = jnp.where(mask, nn.LayerNorm(epsilon=1e-5, name="norm2")(x), 0.0)
        inner = nn.relu(Convolution(self.channels, self.width, name="convolution")(inner))
        x += Dropout()(Linear(x.shape[-1], name="out")(inner), dropout)
        return jnp.where(mask, x, 0.0)


def sinusoids(steps: int, size: int) -> Float[Array, "T D"]:
    """Positions as sines and cosines (Vaswani et al. 2017, §3.5), `size` even."""
    rates = 10_000.0 ** (-jnp.arange(0, size, 2) / size)
    angles = jnp.arange(steps)[:, None] * rates[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def mean_over(values: Float[Array, "B T"], counted: Bool[Array, "B T"]) -> Float[Array, " B"]:
    """Mean over the steps that count; 0 where none does."""
    total = jnp.sum(jnp.where(counted, values, 0.0), axis=1)
    return total / jnp.maximum(jnp.sum(counted, axis=1), 1)

"""The speaker adversary: the paper's baseline for control of the accent.

Before Ai-TTS an accent's strength was controlled by the weight of a speaker-adversarial loss (Zhang
et al., Interspeech 2019): a classifier guesses the speaker from the accented phones, the gradient
that reaches them is reversed, and the more it weighs the less of a speaker's manner they keep. One
weight needs one training. Here one network learns them all: each utterance draws its weight, and
the network is told which, as loss-conditional training does (Dosovitskiy and Djolonga, ICLR 2020).
So the weight takes the place of the intensity. The terms that speak of intensities (consistency,
movement, the predictor for plain text) fall away, and a weight of 0 is an accent like any other.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmer_jax.nn.layers import Linear


@jax.custom_vjp
def reversed_gradient(
    x: Float[Array, "B P D"], weight: Float[Array, " B"]
) -> Float[Array, "B P D"]:
    """x itself; its gradient comes back with the factor -weight (Ganin et al. 2016)."""
    del weight
    return x


def _forward(x, weight):
    return x, weight


def _backward(weight, gradient):
    return -weight[:, None, None] * gradient, jnp.zeros_like(weight)


reversed_gradient.defvjp(_forward, _backward)


class SpeakerAdversary(nn.Module):
    """Who speaks, guessed from each accented phone."""

    n_speakers: int
    size: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B P D"], weight: Float[Array, " B"]
    ) -> Float[Array, "B P speakers"]:
        """Logits; `weight` is what the reversed gradient has for each utterance."""
        # Normalised, or the reversed loss could be raised without end by longer vectors alone.
        x = nn.LayerNorm(epsilon=1e-5, use_scale=False, use_bias=False)(x)
        hidden = nn.relu(Linear(self.size, name="hidden")(reversed_gradient(x, weight)))
        return Linear(self.n_speakers, name="out")(hidden)

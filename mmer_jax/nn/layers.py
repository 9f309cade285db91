"""Layers of every network here: Linear with the papers' initialisation, and Dropout."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Kaiming normal (fan in) and zero bias, as in the released training code.
kaiming = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
Linear = partial(nn.Dense, kernel_init=kaiming)


def leaky_relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """LeakyReLU with slope 0.01."""
    return nn.leaky_relu(x, 0.01)


class Dropout(nn.Module):
    """Dropout whose rate may be a traced number, so that trials may differ in it.

    `rate=None` turns it off (evaluation). The random key is Flax's stream "dropout".
    """

    @nn.compact
    def __call__(self, x: Float[Array, "..."], rate: Float[Array, ""] | float | None):
        if rate is None:
            return x
        keep = 1.0 - jnp.asarray(rate, x.dtype)
        kept = jax.random.bernoulli(self.make_rng("dropout"), keep, x.shape)
        return jnp.where(kept, x / jnp.maximum(keep, 1e-6), 0.0)

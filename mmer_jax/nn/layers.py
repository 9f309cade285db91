"""Layers of every network here: Linear with the papers' initialisations, Dropout, BatchNorm."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Kaiming normal (fan in), as in the released training code.
kaiming = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
# PyTorch's default, which HARDY-MER leaves as it is: uniform within ± 1/√(fan in).
torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def merge_rows(x: Array, inner: int = 1) -> tuple[Array, Callable[[Array], Array]]:
    """[..., B, <inner axes>] -> ([B · ..., <inner axes>], what leads an array back).

    Rows come first, because only then does a batch divided over devices stay divided: patterns
    first, and every device would gather the whole batch.
    """
    leading = x.ndim - inner
    rows_first = jnp.moveaxis(x, leading - 1, 0)

    def restore(y: Array) -> Array:
        return jnp.moveaxis(y.reshape(*rows_first.shape[:leading], *y.shape[1:]), 0, leading - 1)

    return rows_first.reshape(-1, *x.shape[leading:]), restore


class Linear(nn.Module):
    """x W + b as one product of two matrices, whatever x's leading axes.

    With several of them XLA transposes x for the gradient of W, which takes twice the time (CPU).
    Rows should come first (`merge_rows`).

    Attributes:
      hold: what the bias goes through, such as a `stop_gradient` of a part of it.
    """

    features: int
    use_bias: bool = True
    kernel_init: Callable = kaiming
    hold: Callable[[Array], Array] | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... E"]:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        out = x.reshape(-1, x.shape[-1]) @ kernel
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            out += (self.hold(bias) if self.hold else bias)[None]
        return out.reshape(*x.shape[:-1], self.features)


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
        kept = hashed_uniform(self.make_rng("dropout"), x.shape) < keep
        return jnp.where(kept, x / jnp.maximum(keep, 1e-6), 0.0)


def hashed_uniform(key: Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Multiples of 2^-24 in [0, 1): a hash of each place and the key, good enough for dropout.

    JAX's own numbers are of cryptographic quality, 20 rounds over the whole array one after the
    other; on a CPU they took more time than the networks. This is one pass, 18 times faster there.
    """
    words = jax.random.key_data(key)
    place = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    bits = _mix(_mix(place ^ words[0]) + words[-1])
    return (bits >> 8).astype(jnp.float32) * 2.0**-24


def _mix(x: Array) -> Array:
    """A bijection of 32-bit numbers in which every bit depends on every bit.

    Shifts and factors are those that C. Wellons found by search ("hash prospector").
    """
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, with PyTorch's running statistics.

    Rows of weight 0 do not count. The statistics are the collection "statistics"; a method hands
    them to the engine (`Stage.loss`). As a batch's statistics are global over the batch, they do
    not depend on the number of devices.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "... D"], weights: Float[Array, "..."] | None):
        """`weights` of the rows in training; None normalises by the running statistics."""
        size = x.shape[-1]
        running_mean = self.variable("statistics", "mean", jnp.zeros, size)
        running_var = self.variable("statistics", "var", jnp.ones, size)
        scale = self.param("scale", nn.initializers.ones, (size,))
        bias = self.param("bias", nn.initializers.zeros, (size,))
        mean, var = running_mean.value, running_var.value
        if weights is not None:
            mean, var = self._of_batch(x, weights)
            count = jnp.sum(weights)
            rate = jnp.where(count > 0, self.momentum, 0.0)
            unbiased = var * count / jnp.maximum(count - 1, 1)
            running_mean.value += rate * (mean - running_mean.value)
            running_var.value += rate * (unbiased - running_var.value)
        shape = (1,) * (x.ndim - 1) + (size,)
        factor = jax.lax.rsqrt(var + self.epsilon) * scale
        return (x - mean.reshape(shape)) * factor.reshape(shape) + bias.reshape(shape)

    def _of_batch(self, x, weights):
        axes = tuple(range(x.ndim - 1))
        share = (weights / jnp.maximum(jnp.sum(weights), 1e-9))[..., None]
        mean = jnp.sum(share * x, axis=axes)
        centred = x - mean.reshape((1,) * len(axes) + (-1,))
        return mean, jnp.sum(share * centred**2, axis=axes)

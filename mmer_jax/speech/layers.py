"""Layers over padded sequences of frames: what stands in the padding changes nothing."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmer_jax.nn.layers import Linear
from mmer_jax.nn.recurrence import lstm


def frame_mask(n_frames: Int[Array, " B"], width: int) -> Bool[Array, "B F"]:
    """Which of `width` frames are real."""
    return jnp.arange(width)[None] < n_frames[:, None]


class Convolution(nn.Module):
    """A convolution over time as one product of matrices; zeros stand around the sequence.

    Frame t of the output is centred on frame t · stride of the input.
    """

    features: int
    width: int
    stride: int = 1

    @nn.compact
    def __call__(
        self, x: Float[Array, "B F D"], n_frames: Int[Array, " B"]
    ) -> Float[Array, "B G E"]:
        x = jnp.where(frame_mask(n_frames, x.shape[1])[..., None], x, 0.0)
        before = self.width // 2
        count = -(-x.shape[1] // self.stride)
        last = self.stride * (count - 1) + self.width
        x = jnp.pad(x, [(0, 0), (before, max(0, last - before - x.shape[1])), (0, 0)])
        taps = [
            x[:, i : i + self.stride * (count - 1) + 1 : self.stride] for i in range(self.width)
        ]
        return Linear(self.features)(jnp.concatenate(taps, axis=-1))


class BiLSTM(nn.Module):
    """An LSTM from the left and one from the right, side by side."""

    hidden: int  # of each direction

    @nn.compact
    def __call__(
        self, x: Float[Array, "B F D"], n_frames: Int[Array, " B"]
    ) -> Float[Array, "B F E"]:
        forward = self._direction("forward", x)
        backward = self._direction("backward", reverse(x, n_frames))
        return jnp.concatenate([forward, reverse(backward, n_frames)], axis=-1)

    def _direction(self, name: str, x):
        init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
        projected = Linear(4 * self.hidden, kernel_init=init, name=name)(x)
        shape = (self.hidden, 4 * self.hidden)
        w_hidden = self.param(f"{name}_hidden", nn.initializers.orthogonal(), shape)
        return lstm(projected.swapaxes(0, 1), w_hidden).swapaxes(0, 1)


def reverse(x: Float[Array, "B F D"], n_frames: Int[Array, " B"]) -> Float[Array, "B F D"]:
    """The real frames in reverse; the padding stays where it is."""
    place = jnp.arange(x.shape[1])[None]
    place = jnp.where(place < n_frames[:, None], n_frames[:, None] - 1 - place, place)
    return jax.vmap(lambda row, index: row[index])(x, place)

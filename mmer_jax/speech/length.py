"""From phones to frames: the length regulator, with static shapes."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmer_jax.speech.extract import STRIDE


class Frames(NamedTuple):
    """Which phone each frame belongs to."""

    phone: Int[Array, "B F"]  # its place in the sequence
    progress: Float[Array, "B F"]  # how much of the phone lies before the frame's middle, 0 to 1
    duration: Float[Array, "B F"]  # of the phone, in frames
    valid: Bool[Array, "B F"]  # False past the end

    @property
    def lengths(self) -> Int[Array, " B"]:
        """How many frames there are."""
        return jnp.sum(self.valid, axis=1)

    def spread(self, values: Float[Array, "B P D"]) -> Float[Array, "B F D"]:
        """Each frame's value of its phone; 0 past the end."""
        spread = jnp.take_along_axis(values, self.phone[..., None], axis=1)
        return jnp.where(self.valid[..., None], spread, 0.0)


def frames_of(durations: Int[Array, "B P"], steps: int) -> Frames:
    """Lay phones of the given durations on `steps` frames; what does not fit is cut off.

    Args:
      durations: of phones in frames; 0 for padding.
      steps: F.
    """
    ends = jnp.cumsum(durations, axis=1)
    frame = jnp.arange(steps)[None]
    phone = jnp.sum(ends[:, None] <= frame[..., None], axis=-1)
    valid = phone < durations.shape[1]
    phone = jnp.minimum(phone, durations.shape[1] - 1)
    end, duration = (jnp.take_along_axis(x, phone, axis=1) for x in (ends, durations))
    length = jnp.maximum(duration, 1).astype(jnp.float32)
    progress = (frame - (end - duration) + 0.5) / length
    return Frames(phone, jnp.where(valid, progress, 0.0), jnp.where(valid, length, 1.0), valid)


def whole_frames(log_durations: Float[Array, "B P"], phones: Int[Array, "B P"]):
    """Predicted log durations -> int32 frames [B, P]; 0 for padding.

    The logarithm is of durations in frames. No phone lasts more than 1.6 s, or less than one frame
    of the recogniser, which could not align shorter ones.
    """
    frames = jnp.clip(jnp.round(jnp.exp(log_durations)), STRIDE, 100).astype(jnp.int32)
    return jnp.where(phones > 0, frames, 0)


def cut(durations: Int[Array, "B P"], steps: int) -> Int[Array, "B P"]:
    """The durations of what lies on the first `steps` frames."""
    ends = jnp.minimum(jnp.cumsum(durations, axis=1), steps)
    return jnp.diff(ends, axis=1, prepend=0)

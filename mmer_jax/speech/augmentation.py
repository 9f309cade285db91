"""Variations of a training spectrum that real rooms, microphones and speakers bring.

The default corpus is clean synthetic speech. What is heard through these variations is less tied
to one voice and one recording. All work on log-mel spectra and run inside the training step.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

LOUDEST_NOISE, SOFTEST_NOISE = -2.0, -12.0  # nats below the loudest band of the utterance
TILT = 3.0  # nats that noise may rise or fall over the bands
CONTRAST = (0.75, 1.25)  # factor of the spectrum about its mean


def vary(
    key: Array, mel: Float[Array, "B F M"], real: Bool[Array, "B F"], *, warp: float, noise: float
) -> Float[Array, "B F M"]:
    """Each row with another vocal tract, another contrast and another noise.

    Args:
      real: which frames are no padding.
      warp: the bands are stretched or squeezed by up to this share.
      noise: share of the rows that get noise.
    """
    warp_key, contrast_key, noise_key = jax.random.split(key, 3)
    mel = warped(warp_key, mel, warp)
    factor = jax.random.uniform(contrast_key, (len(mel), 1, 1), jnp.float32, *CONTRAST)
    mean = _mean(mel, real)
    varied = mean + (mel - mean) * jnp.where(warp + noise > 0, factor, 1.0)
    return with_noise(noise_key, varied, real, noise)


def warped(key: Array, mel: Float[Array, "B F M"], most: float) -> Float[Array, "B F M"]:
    """Band m of each row becomes band m · (1 ± up to `most`), interpolated."""
    n_bands = mel.shape[2]
    factor = 1 + jax.random.uniform(key, (len(mel), 1), jnp.float32, -most, most)
    place = jnp.clip(jnp.arange(n_bands)[None] * factor, 0, n_bands - 1)
    low = jnp.floor(place).astype(jnp.int32)
    high = jnp.minimum(low + 1, n_bands - 1)
    share = (place - low)[:, None]
    below = jnp.take_along_axis(mel, low[:, None], axis=2)
    above = jnp.take_along_axis(mel, high[:, None], axis=2)
    return below + share * (above - below)


def with_noise(
    key: Array, mel: Float[Array, "B F M"], real: Bool[Array, "B F"], share: float
) -> Float[Array, "B F M"]:
    """Stationary noise of a random level and slope, added to the power of some rows."""
    level_key, tilt_key, ripple_key, which_key = jax.random.split(key, 4)
    rows = (len(mel), 1, 1)
    peak = jnp.max(jnp.where(real[..., None], mel, -jnp.inf), axis=(1, 2), keepdims=True)
    level = jax.random.uniform(level_key, rows, jnp.float32, SOFTEST_NOISE, LOUDEST_NOISE)
    slope = jax.random.uniform(tilt_key, rows, jnp.float32, -TILT, TILT)
    band = jnp.linspace(-0.5, 0.5, mel.shape[2])[None, None]
    ripple = 0.3 * jax.random.normal(ripple_key, mel.shape)  # a frame's noise is never smooth
    noisy = jnp.logaddexp(mel, peak + level + slope * band + ripple)
    chosen = jax.random.uniform(which_key, rows) < share
    return jnp.where(chosen, noisy, mel)


def masked(
    key: Array, mel: Float[Array, "B F M"], real: Bool[Array, "B F"], bands: int, frames: int
) -> Float[Array, "B F M"]:
    """SpecAugment: up to `bands` bands and up to `frames` frames of each row at its mean."""
    mean = _mean(mel, real)
    for number, (axis, most) in enumerate(((1, frames), (2, bands))):
        size, place = jax.random.split(jax.random.fold_in(key, number))
        length = mel.shape[axis]
        widths = jax.random.randint(size, (len(mel), 1), 0, most + 1)
        starts = jax.random.randint(place, (len(mel), 1), 0, length)
        at = jnp.arange(length)[None]
        hit = (at >= starts) & (at < starts + widths)
        mel = jnp.where(hit[:, :, None] if axis == 1 else hit[:, None], mean, mel)
    return mel


def _mean(mel: Float[Array, "B F M"], real: Bool[Array, "B F"]) -> Float[Array, "B 1 1"]:
    """Of each row, over its real frames."""
    band_means = jnp.mean(mel, axis=2)
    total = jnp.sum(jnp.where(real, band_means, 0.0), axis=1)
    return (total / jnp.maximum(jnp.sum(real, axis=1), 1))[:, None, None]

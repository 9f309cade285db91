"""The consistency constraint: the intensity measured on the output must be the one asked for.

The frozen recogniser hears the synthesised mel and scores each phone. Its goodness of pronunciation
is exactly 0 wherever it prefers the canonical phone, and so has no gradient there: a stronger
accent could not begin. The loss therefore measures a margin that goes on beyond 0.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmer_jax.speech.blocks import mean_over
from mmer_jax.speech.phones import BLANK

SLOPE = 0.1  # of the margin where the canonical phone is preferred
NEVER = -1e9  # a log probability; finite, so that gradients stay finite


def margin(
    log_posteriors: Float[Array, "B G S"],
    phones: Int[Array, "B P"],
    weights: Float[Array, "B P G"],
    slope: float = SLOPE,
) -> Float[Array, "B P"]:
    """Mean over a phone's frames of log p(phone) - log p(best other phone).

    Frames where that is positive count `slope` times; with a slope of 0 this is `gop.goodness`.

    Args:
      log_posteriors: of the recogniser's frames.
      phones: canonical; 0 = padding.
      weights: of frames in phones (gop.duration_weights); none: the phone's margin is 0.
      slope: see above.
    """
    symbols = jnp.arange(log_posteriors.shape[-1])[None, None]
    heard = jnp.where(symbols == BLANK, NEVER, log_posteriors)
    best, best_symbol = jnp.max(heard, axis=-1), jnp.argmax(heard, axis=-1)
    second = jnp.max(jnp.where(symbols == best_symbol[..., None], NEVER, heard), axis=-1)
    is_phone = (symbols == phones[..., None]).astype(log_posteriors.dtype)
    own = jnp.einsum("bps,bgs->bpg", is_phone, log_posteriors)
    preferred = best_symbol[:, None] == phones[..., None]
    margins = own - jnp.where(preferred, second[:, None], best[:, None])
    bent = jnp.where(margins > 0, slope * margins, margins)
    total = jnp.maximum(jnp.sum(weights, axis=-1), 1e-6)
    return jnp.sum(weights * bent, axis=-1) / total


def mismatch(
    margins: Float[Array, "B P"],
    requested: Float[Array, "B P"],
    counted: Bool[Array, "B P"],
    low: float,
    high: float,
) -> tuple[Float[Array, "B P"], Float[Array, " B"]]:
    """How far measured intensities are from the requested: of phones, and of utterances' means.

    Huber's function of the difference, a square below 0.5. A request of 0 or 1 is also met by what
    lies beyond, as the measured intensity is cut off there.

    Args:
      margins: of `margin`.
      requested: from 0 to 1.
      counted: the phones that have frames and an intensity; others have 0.
      low, high: the goodness of an intensity of 1 and of 0 (`intensity.IntensityScale`).
    """
    measured = (high - margins) / (high - low)
    measured = jnp.where(requested <= 0, jnp.maximum(measured, 0.0), measured)
    measured = jnp.where(requested >= 1, jnp.minimum(measured, 1.0), measured)
    error = jnp.where(counted, measured - requested, 0.0)
    of_phones = huber(error)
    return of_phones, huber(mean_over(jnp.clip(error, -1.0, 1.0), counted))


def movement_mismatch(
    mel: Float[Array, "B F M"],
    valid: Bool[Array, "B F"],
    recorded: Float[Array, "B F M"],
    recorded_valid: Bool[Array, "B F"],
) -> Float[Array, " B"]:
    """How far the bands' movement is from that of recordings of the same sentences.

    The difference of two logarithms: of a band's standard deviation over the utterance (the global
    variance of Toda and Tokuda 2007), and of that of its steps from frame to frame. Absolute, and a
    mean over both and the bands.
    """
    made, real = _movement(mel, valid), _movement(recorded, recorded_valid)
    return jnp.mean(jnp.abs(made - real), axis=(1, 2))


def _movement(mel: Float[Array, "B F M"], valid: Bool[Array, "B F"]) -> Float[Array, "B 2 M"]:
    """Logarithms of the deviations of bands, and of their steps."""
    steps = jnp.diff(mel, axis=1)
    deviations = [_deviation(mel, valid), _deviation(steps, valid[:, 1:])]
    return jnp.log(jnp.stack(deviations, axis=1))


def _deviation(x: Float[Array, "B F M"], valid: Bool[Array, "B F"]) -> Float[Array, "B M"]:
    share = valid / jnp.maximum(jnp.sum(valid, axis=1, keepdims=True), 1)
    mean = jnp.einsum("bfm,bf->bm", x, share)
    return jnp.sqrt(jnp.einsum("bfm,bf->bm", jnp.square(x - mean[:, None]), share) + 1e-4)


def huber(x: Float[Array, "..."], bend: float = 0.5) -> Float[Array, "..."]:
    """x² / 2 up to `bend`, a line beyond (Huber 1964)."""
    size = jnp.abs(x)
    return jnp.where(size < bend, 0.5 * x**2, bend * (size - 0.5 * bend))


def perturbed(mel: Float[Array, "B F M"], key: Array) -> Float[Array, "B F M"]:
    """The mel as it may sound after a vocoder: louder or softer, tinted, with some noise.

    The recogniser must hear the accent whatever these are, so that no network learns to please it
    by a pattern that no vocoder keeps.

    Args:
      mel: natural logarithms.
      key: of the random numbers.
    """
    keys = jax.random.split(key, 3)
    batch, _, bands = mel.shape
    gain = 0.5 * jax.random.normal(keys[0], (batch, 1, 1))
    tint = 0.3 * jax.random.normal(keys[1], (batch, 1, 8))
    tint = jax.image.resize(tint, (batch, 1, bands), "linear")
    return mel + gain + tint + 0.2 * jax.random.normal(keys[2], mel.shape)

"""How long the phones of a batch last: as given, or by forced alignment."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmer_jax.speech.alignment import align, durations_of
from mmer_jax.speech.batch import SpeechBatch
from mmer_jax.speech.extract import STRIDE
from mmer_jax.speech.recogniser import posterior_frames


def aligned_durations(
    posteriors: Float[Array, "B G S"], batch: SpeechBatch
) -> tuple[Int[Array, "B P"], Bool[Array, " B"]]:
    """(feature frames of each phone by forced alignment without blanks, whether there is one)."""
    frames = posterior_frames(batch.n_frames)
    found = align(posteriors, frames, batch.phones, batch.n_phones, blanks=False)
    return durations_of(found, batch.n_frames, batch.n_phones, STRIDE), found.feasible


def has_durations(batch: SpeechBatch) -> Bool[Array, " B"]:
    """Which utterances came with an alignment."""
    return jnp.sum(batch.durations, axis=1) > 0


def completed(
    posteriors: Float[Array, "B G S"], batch: SpeechBatch
) -> tuple[Int[Array, "B P"], Bool[Array, " B"]]:
    """As `aligned_durations`, but the given ones where there are any."""
    found, feasible = aligned_durations(posteriors, batch)
    return jnp.where(has_durations(batch)[:, None], batch.durations, found), feasible

"""Where the phones of an utterance are: as given, or by forced alignment.

To make speech every frame must belong to a phone (`aligned_durations`). To judge it, pauses belong
to none (`judge_phones`), and an alignment that came with the utterance is no help: whatever is
judged, recordings or synthesised speech, is found by the same ear.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmer_jax.speech.alignment import Alignment, align, durations_of
from mmer_jax.speech.batch import SpeechBatch
from mmer_jax.speech.extract import STRIDE
from mmer_jax.speech.gop import goodness, span_weights
from mmer_jax.speech.phones import BLANK, SIL
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


def judged_spans(
    log_posteriors: Float[Array, "B G S"],
    n_frames: Int[Array, " B"],
    phones: Int[Array, "B P"],
    n_phones: Int[Array, " B"],
) -> Alignment:
    """Where each phone is, in frames of the posteriors [B, G, S].

    Blanks and silence between phones are pauses, so that a hesitation belongs to no phone.
    """
    log_posteriors = jnp.asarray(log_posteriors)
    pause = jnp.logaddexp(log_posteriors[..., BLANK], log_posteriors[..., SIL])
    return align(log_posteriors.at[..., BLANK].set(pause), n_frames, phones, n_phones)


@jax.jit
def judge_phones(
    log_posteriors: Float[Array, "B G S"],
    n_frames: Int[Array, " B"],
    phones: Int[Array, "B P"],
    n_phones: Int[Array, " B"],
) -> tuple[Alignment, Float[Array, "B P"]]:
    """(`judged_spans`, goodness of pronunciation), of recordings and synthesised speech alike."""
    spans = judged_spans(log_posteriors, n_frames, phones, n_phones)
    weights = span_weights(spans.starts, spans.ends, log_posteriors.shape[1])
    return spans, goodness(log_posteriors, phones, weights)

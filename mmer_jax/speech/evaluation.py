"""How good a recogniser is: phone error rate, boundaries, and telling L1 from L2."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from scipy.stats import rankdata

from mmer_jax.speech import ctc
from mmer_jax.speech.annotate import BATCH
from mmer_jax.speech.batch import SpeechBatch
from mmer_jax.speech.dataset import SpeechData
from mmer_jax.speech.features import FRAME_SECONDS
from mmer_jax.speech.recogniser import Recogniser, posterior_frames
from mmer_jax.speech.spans import aligned_durations

CLOSE = 0.032  # seconds: two feature frames


class Recognition(NamedTuple):
    """Scores on utterances of L1."""

    per_greedy: float
    per_beam: float
    boundary_ms: float  # mean distance of aligned from given boundaries; NaN: none are given
    boundary_close: float  # share of boundaries within `CLOSE`


def recognition(recogniser: Recogniser, data: SpeechData, rows: np.ndarray) -> Recognition:
    """Phone error rates and boundary errors on some rows."""
    batches = list(data.stream(data.batches(rows, BATCH, None)))
    ask = jax.jit(lambda batch: _aligned(recogniser, batch))
    found = [jax.tree.map(np.asarray, ask(batch)) for batch in batches]
    posteriors = [part[0] for part in found]
    distances = [
        _distances(batch, durations) for batch, (_, durations) in zip(batches, found, strict=True)
    ]
    seconds = FRAME_SECONDS * np.concatenate(distances)
    return Recognition(
        per_greedy=error_rate(batches, posteriors),
        per_beam=error_rate(batches, posteriors, ctc.beam),
        boundary_ms=float(1000 * seconds.mean()) if len(seconds) else float("nan"),
        boundary_close=float((seconds <= CLOSE).mean()) if len(seconds) else float("nan"),
    )


def _aligned(recogniser: Recogniser, batch: SpeechBatch):
    posteriors = recogniser.log_posteriors(batch.mel, batch.n_frames)
    return posteriors, aligned_durations(posteriors, batch)[0]


def _distances(batch: SpeechBatch, durations: np.ndarray) -> np.ndarray:
    """Frames between given and found ends of phones, of the rows that have an alignment."""
    given = np.cumsum(batch.durations, axis=1)
    found = np.cumsum(durations, axis=1)
    inner = np.arange(given.shape[1])[None] < batch.n_phones[:, None] - 1
    counted = inner & (batch.durations.sum(axis=1) > 0)[:, None] & (batch.weights > 0)[:, None]
    return np.abs(given - found)[counted]


def error_rate(
    batches: Sequence[SpeechBatch], outputs: Sequence[np.ndarray], decode=ctc.greedy
) -> float:
    """Phone error rate over the rows that count."""
    heard, spoken = [], []
    for batch, posteriors in zip(batches, outputs, strict=True):
        for row in np.flatnonzero(batch.weights):
            n_frames = int(posterior_frames(batch.n_frames[row]))
            heard.append(decode(posteriors[row], n_frames))
            spoken.append(batch.phones[row, : batch.n_phones[row]].tolist())
    return ctc.phone_error_rate(heard, spoken)


def auc(lower: np.ndarray, higher: np.ndarray) -> float:
    """Probability that one of `higher` exceeds one of `lower`, ties counting half."""
    ranks = rankdata(np.concatenate([lower, higher]))[len(lower) :]
    count = len(higher)
    return float((ranks.sum() - count * (count + 1) / 2) / (count * len(lower)))


def utterance_means(values: np.ndarray, words: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """[N] means of packed phone values [sum P] over each utterance; silence does not count."""
    row = np.repeat(np.arange(len(lengths)), lengths)[words >= 0]
    spoken = values[words >= 0]
    return np.bincount(row, spoken, len(lengths)) / np.maximum(
        np.bincount(row, minlength=len(lengths)), 1
    )

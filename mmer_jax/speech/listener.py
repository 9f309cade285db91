"""The frozen recogniser as a listener: what it hears in speech that is to say given phones."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mmer_jax.speech.aitts import Judge
from mmer_jax.speech.extract import STRIDE
from mmer_jax.speech.features import FRAME_SECONDS, log_mel, magnitudes
from mmer_jax.speech.scoring import posteriors_of, score


class Heard(NamedTuple):
    """What was heard in one utterance."""

    intensity: Float[np.ndarray, " P"]  # measured, of phones; 0 of silence
    mean: float  # over the phones, silence left out
    phones: tuple[int, ...]  # recognised


def hear(
    judge: Judge,
    mel: Float[np.ndarray, "F M"],
    phones: Int[np.ndarray, " P"],
    words: Int[np.ndarray, " P"],
) -> Heard:
    """Measure an utterance as the scorer does.

    Args:
      judge: the recogniser and the corpus's scale of intensity.
      mel: natural logarithms.
      phones, words: of phones.sequence, what it is to say.

    Raises:
      UserError: there are more phones than the recogniser has frames.
    """
    posteriors = posteriors_of(judge.recogniser, mel)
    scored = score("speech", (), phones, words, posteriors, STRIDE * FRAME_SECONDS)
    intensity = np.where(words >= 0, judge.scale.intensity(scored.goodness), 0.0)
    return Heard(intensity, float(intensity[words >= 0].mean()), scored.heard)


def hear_audio(judge: Judge, audio: Float[np.ndarray, " n"], phones, words) -> Heard:
    """`hear` of audio at 16 kHz."""
    return hear(judge, log_mel(magnitudes(audio)), phones, words)

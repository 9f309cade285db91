"""The frozen recogniser as a listener: what it hears in audio that is to say given phones."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from mmer_jax.speech.aitts import Judge
from mmer_jax.speech.alignment import align
from mmer_jax.speech.ctc import greedy
from mmer_jax.speech.features import log_mel, magnitudes
from mmer_jax.speech.gop import goodness, span_weights
from mmer_jax.speech.phones import SIL
from mmer_jax.speech.recogniser import posterior_frames
from mmer_jax.speech.voice import AT_ONCE, FRAMES_STEP, PHONES_STEP, padded_table, up

Mel = Float[np.ndarray, "F M"]


class Heard(NamedTuple):
    """What was heard in one utterance."""

    intensity: Float[np.ndarray, " P"]  # measured, of phones; 0 of silence
    phones: list[int]  # recognised

    def mean(self, words: Int[np.ndarray, " P"]) -> float:
        """The utterance's measured intensity: the mean over its phones, silence left out."""
        return float(self.intensity[words >= 0].mean())


class Listener:
    """Measures utterances as the scorer does: posteriors, forced alignment, goodness, scale."""

    def __init__(self, judge: Judge):
        self.judge = judge
        self._measure = jax.jit(self._measured)

    def hear_audio(
        self, audio: Sequence[Float[np.ndarray, " n"]], phones: Sequence[Int[np.ndarray, " P"]]
    ) -> list[Heard]:
        """Of audio at 16 kHz."""
        return self.hear([log_mel(magnitudes(one)) for one in audio], phones)

    def hear(self, mels: Sequence[Mel], phones: Sequence[Int[np.ndarray, " P"]]) -> list[Heard]:
        """Of log-mel spectrograms.

        Args:
          mels: natural logarithms.
          phones: what each is to say.
        """
        found: list[Heard] = []
        for start in range(0, len(mels), AT_ONCE):
            end = start + AT_ONCE
            found += self._hear_together(mels[start:end], phones[start:end])
        return found

    def _hear_together(self, mels, phones) -> list[Heard]:
        n_frames, n_phones = (np.array([len(x) for x in xs], np.int32) for xs in (mels, phones))
        frames, width = up(n_frames.max(), FRAMES_STEP), up(n_phones.max(), PHONES_STEP)
        mel = np.stack([np.pad(m, ((0, frames - len(m)), (0, 0))) for m in mels])
        table = padded_table(phones, width, 0)
        log_posteriors, intensity = map(np.asarray, self._measure(mel, n_frames, table, n_phones))
        lengths = np.asarray(posterior_frames(n_frames))
        return [
            Heard(intensity[i, :n], greedy(log_posteriors[i, : lengths[i]], lengths[i]))
            for i, n in enumerate(n_phones)
        ]

    def _measured(self, mel, n_frames, phones, n_phones):
        log_posteriors = self.judge.recogniser.log_posteriors(mel, n_frames)
        lengths = posterior_frames(n_frames)
        found = align(log_posteriors, lengths, phones, n_phones)
        weights = span_weights(found.starts, found.ends, log_posteriors.shape[1])
        intensity = self.judge.scale.intensity(goodness(log_posteriors, phones, weights))
        return log_posteriors, jax.numpy.where((phones == SIL) | (phones == 0), 0.0, intensity)

"""The pronunciation of single utterances: where each phone is, how good, and what was heard."""

import functools
from typing import NamedTuple

import jax
import numpy as np

from mmer_jax.errors import UserError
from mmer_jax.speech import ctc
from mmer_jax.speech.phones import SIL
from mmer_jax.speech.recogniser import Recogniser, posterior_frames
from mmer_jax.speech.spans import judge_phones

WIDTH_STEP, PHONE_STEP = 128, 32  # shapes are rounded up to these, so that few are compiled


class Scored(NamedTuple):
    """An utterance's phones; those of word -1 are silence."""

    utt_id: str
    word_names: tuple[str, ...]
    phones: np.ndarray  # [P]
    words: np.ndarray  # [P]
    starts: np.ndarray  # [P] seconds
    ends: np.ndarray  # [P] seconds
    goodness: np.ndarray  # [P]
    heard: tuple[int, ...]  # greedy decoding, no silence

    @property
    def mean(self) -> float:
        """Goodness of the utterance: the mean over its phones."""
        return float(self.goodness[self.words >= 0].mean())


def posteriors_of(recogniser: Recogniser, mel: np.ndarray) -> np.ndarray:
    """[G, S] of one utterance's log-mel spectrum [F, 80]."""
    width = -(-len(mel) // WIDTH_STEP) * WIDTH_STEP
    padded = np.pad(mel, [(0, width - len(mel)), (0, 0)])[None]
    found = _ask(recogniser.network, recogniser.params, padded, np.array([len(mel)]))
    return np.asarray(found)[0, : posterior_frames(len(mel))]


@functools.partial(jax.jit, static_argnums=0)
def _ask(network, params, mel, n_frames):
    return network.apply({"params": params}, mel, n_frames)


def score(
    utt_id: str,
    word_names: tuple[str, ...],
    phones: np.ndarray,
    words: np.ndarray,
    log_posteriors: np.ndarray,
    frame_seconds: float,
) -> Scored:
    """Align the phones [P] with posteriors [G, S] and judge each (spans.judge_phones).

    Raises:
      UserError: there are more phones than frames.
    """
    n_frames, n_phones = len(log_posteriors), len(phones)
    if n_phones > n_frames:
        raise UserError(
            f"{utt_id}: {n_phones} phones in {n_frames} frames of the recogniser "
            f"({n_frames * frame_seconds:.2f} s); is it the audio of this text?"
        )
    padded = np.pad(log_posteriors, [(0, -n_frames % WIDTH_STEP), (0, 0)])[None]
    ids = np.pad(phones, (0, -n_phones % PHONE_STEP))[None]
    spans, values = judge_phones(padded, np.array([n_frames]), ids, np.array([n_phones]))
    return Scored(
        utt_id=utt_id,
        word_names=word_names,
        phones=phones,
        words=words,
        starts=np.asarray(spans.starts)[0, :n_phones] * frame_seconds,
        ends=np.asarray(spans.ends)[0, :n_phones] * frame_seconds,
        goodness=np.asarray(values)[0, :n_phones],
        heard=tuple(p for p in ctc.greedy(log_posteriors, n_frames) if p != SIL),
    )

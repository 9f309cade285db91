"""The phones of an utterance, and how many frames each lasts where an alignment says so."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmer_jax.errors import UserError
from mmer_jax.speech import phones
from mmer_jax.speech.corpus import SpeechCorpus, Utterance
from mmer_jax.speech.features import FRAME_SECONDS
from mmer_jax.speech.phones import INDEX, SIL, Pronunciation, without_stress
from mmer_jax.speech.textgrid import Interval, read_textgrid

SILENCES = ("", "sil", "sp", "spn", "<eps>", "SIL")
TOLERANCE = 0.1  # seconds by which a TextGrid may differ from its audio


class Labels(NamedTuple):
    """Phones of an utterance, silence first and last."""

    ids: np.ndarray  # [P] int32
    words: np.ndarray  # [P] int32, -1: silence
    durations: np.ndarray  # [P] int32 frames; all 0: unknown


def read_labels(corpus: SpeechCorpus, utterance: Utterance, seconds: float, frames: int) -> Labels:
    """The labels of an utterance of so many seconds and feature frames.

    Raises:
      UserError: its text cannot be pronounced, or its TextGrid is not of this audio or text.
    """
    source = utterance.utt_id
    path = corpus.alignment_path(utterance)
    if path is None:
        pronunciation = phones.pronounce(utterance.text, utterance.phones, source)
        ids, words = phones.sequence(pronunciation)
        return Labels(ids, words, np.zeros_like(ids))
    aligned, times = _aligned(path, utterance, seconds)
    ids, words = phones.sequence(aligned)
    return _with_pauses(ids, words, times, frames, str(path))


def _aligned(path: Path, utterance: Utterance, seconds: float):
    """(pronunciation, [(start, end)] of its phones) as a TextGrid has them."""
    grid = read_textgrid(path)
    if abs(grid.seconds - seconds) > TOLERANCE:
        raise UserError(
            f"{path} ends at {grid.seconds:.2f} s, its audio at {seconds:.2f} s; they do not "
            "belong together"
        )
    words = [w for w in grid.tier("words", str(path)) if w.label not in SILENCES]
    sounds = [p for p in grid.tier("phones", str(path)) if p.label not in SILENCES]
    spoken = phones.split_words(utterance.text, utterance.utt_id)
    if len(words) != len(spoken):
        raise UserError(
            f"{path} has {len(words)} words, the text of '{utterance.utt_id}' has {len(spoken)}"
        )
    others = [
        (w.label, word)
        for w, word in zip(words, spoken, strict=True)
        if not w.label.startswith("<") and _letters(w.label) != _letters(word)
    ]
    if others:
        raise UserError(
            f"{path} has the word '{others[0][0]}' where the text of '{utterance.utt_id}' has "
            f"'{others[0][1]}'; do they belong together?"
        )
    unheard = [w.label for w in words if not _within(sounds, w)]
    if unheard:
        raise UserError(
            f"{path} has no phones for the word '{unheard[0]}' (MFA's spn: a word that its "
            "dictionary lacks); add it to the dictionary and align again"
        )
    unknown = sorted({p.label for p in sounds if without_stress(p.label) not in INDEX})
    if unknown:
        raise UserError(
            f"{path}: phone '{unknown[0]}' is not ARPAbet; align with MFA's model english_us_arpa"
        )
    grouped = [tuple(_within(sounds, word)) for word in words]
    if sum(map(len, grouped)) != len(sounds):
        raise UserError(f"{path}: its phones do not lie within its words")
    names = tuple(tuple(without_stress(p.label) for p in group) for group in grouped)
    pronunciation = Pronunciation(spoken, names)
    if utterance.phones:
        given = phones.pronounce(utterance.text, utterance.phones, utterance.utt_id)
        if given.phones != names:
            raise UserError(f"{path} has other phones than utterances.csv: {_flat(names)}")
    return pronunciation, [(p.start, p.end) for group in grouped for p in group]


def _letters(word: str) -> str:
    """A word without apostrophes, hyphens and the like, which releases set as they please."""
    return "".join(filter(str.isalpha, word.casefold()))


def _within(sounds: list[Interval], word: Interval) -> list[Interval]:
    return [p for p in sounds if word.start <= (p.start + p.end) / 2 < word.end]


def _flat(names) -> str:
    return " | ".join(" ".join(word) for word in names)


def _with_pauses(ids, words, times, frames: int, source: str) -> Labels:
    """Durations that add up to `frames`; a pause between phones becomes a silence of its own."""
    found, starts, end = [(SIL, -1)], [0], 0
    for phone, word, time in zip(ids[1:-1], words[1:-1], times, strict=True):
        first, last = (round(t / FRAME_SECONDS) for t in time)
        if len(found) > 1 and first > end + 1:
            found.append((SIL, -1))
            starts.append(end)
        elif len(found) > 1:
            first = end  # less than two frames between phones is rounding
        found.append((int(phone), int(word)))
        starts.append(max(first, end))
        end = max(last, starts[-1] + 1)
    if end > frames:
        raise UserError(f"{source}: its phones need {end} frames, the audio has {frames}")
    both = np.array([*found, (SIL, -1)], np.int32)
    return Labels(both[:, 0], both[:, 1], np.diff([*starts, end, frames]).astype(np.int32))

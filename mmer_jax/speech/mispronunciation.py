"""Does goodness find the single mispronounced phone? Known where espeak-ng was told what to say.

A speaker of the default corpus says some of the consonants foreign to his language right and some
wrong, in the same voice. Which ones is known, so that goodness can be held against it: neither the
voice nor the melody of a foreign speaker helps there.
"""

from collections.abc import Mapping

import numpy as np

from mmer_jax.speech.accents import is_mistaken
from mmer_jax.speech.default_corpus import Speaker, tell
from mmer_jax.speech.phones import without_stress


def consonants(
    columns: Mapping[str, np.ndarray],
    goodness: np.ndarray,
    words: np.ndarray,
    lengths: np.ndarray,
    speakers: Mapping[str, Speaker],
    split: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Goodness of the (mistaken, right) consonants that are foreign to their speakers' languages.

    Args:
      columns: of utterances.csv, [N].
      goodness, words: of the phones of all utterances, [sum P].
      lengths: [N] phones of each.
      speakers: of the default corpus, by name.
      split: whose utterances count.
    """
    mistaken: list[float] = []
    right: list[float] = []
    ends = np.cumsum(lengths)
    chosen = (columns["split"] == split) & (columns["accent"] != "")
    for row in np.flatnonzero(chosen):
        mine = slice(ends[row] - lengths[row], ends[row])
        scores = goodness[mine][words[mine] >= 0]
        speaker = speakers[str(columns["speaker"][row])]
        for score, wrong in zip(scores, _truth(columns["text"][row], speaker), strict=True):
            if wrong is not None:
                (mistaken if wrong else right).append(float(score))
    return np.array(mistaken), np.array(right)


def _truth(text: str, speaker: Speaker) -> list[bool | None]:
    told = tell(str(text), speaker)
    return [
        is_mistaken(without_stress(phone), mnemonics, speaker.accent)
        for word, spoken in zip(told.phones, told.mnemonics, strict=True)
        for phone, mnemonics in zip(word, spoken, strict=True)
    ]

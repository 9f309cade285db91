"""Sentences that training has not seen, with an L1 recording of each."""

from typing import NamedTuple

import numpy as np

from mmer_jax.speech.aitts_task import seen
from mmer_jax.speech.dataset import SpeechData


class Sentence(NamedTuple):
    """A held-out sentence as a training speaker of L1 says it."""

    text: str
    phones: np.ndarray  # [P]
    words: np.ndarray  # [P]
    durations: np.ndarray  # [P] frames
    mel: np.ndarray  # [F, M] of the recording


def held_out_sentences(data: SpeechData, split: str, count: int) -> list[Sentence]:
    """The first `count` different sentences of a split, `dev` or `test`, in alphabetical order.

    Raises:
      UserError: no training speaker of L1 has said one.
    """
    rows = seen(data, split, accent="")
    tables = data.batches(rows, 16, None)
    found: dict[str, Sentence] = {}
    for table, batch in zip(tables, data.stream(tables), strict=True):
        for place, row in enumerate(table):
            if row < 0:
                continue
            text, n = str(data.columns["text"][row]), batch.n_phones[place]
            columns = (batch.phones, batch.words, batch.durations)
            phones, words, durations = (np.asarray(column)[place, :n] for column in columns)
            mel = np.asarray(batch.mel)[place, : batch.n_frames[place]]
            found.setdefault(text, Sentence(text, phones, words, durations, mel))
    return [found[text] for text in sorted(found)][:count]

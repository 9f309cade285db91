"""Who speaks, numbered within each dialogue: 0 who speaks first, 1 the next one, and so on.

Voices of test dialogues are not known from training, their turns are: a number says whose turn it
is and depends on no later one.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mmer_jax.data.corpus import Corpus
from mmer_jax.data.units import Grouping, make_dialogues
from mmer_jax.errors import UserError, shorten


def with_speakers(corpus: Corpus, dialogues: str = "column") -> Corpus:
    """`corpus` with the numbers of its speakers.

    Args:
      corpus: with the columns `dialogue`, `turn` and `speaker`.
      dialogues: as of `units.make_grouping`.

    Raises:
      UserError: a column is missing, turns cannot be ordered, or an utterance has no speaker.
    """
    if "speaker" not in corpus.columns:
        raise UserError(
            "a method that reads the turns before needs the column 'speaker' in utterances.csv, "
            f"which has: {', '.join(corpus.columns)}. Pass --config.model.history=0 to do without"
        )
    numbers = number_speakers(
        make_dialogues(corpus, dialogues), corpus.columns["speaker"], corpus.ids
    )
    spec = dataclasses.replace(corpus.spec, n_speakers=int(numbers.max()) + 1)
    return dataclasses.replace(corpus, speakers=numbers, spec=spec)


def number_speakers(
    dialogues: Grouping, speakers: Sequence[str] | np.ndarray, ids: np.ndarray
) -> np.ndarray:
    """[N] int32 numbers of the speakers [N], in the order in which they first speak."""
    speakers = np.asarray(speakers, str)
    if (speakers == "").any():
        raise UserError(
            f"{int((speakers == '').sum())} utterance(s) have no speaker: "
            f"{shorten(ids[speakers == ''])}; name who speaks, a name of its own where unknown"
        )
    numbers = np.zeros(len(speakers), np.int32)
    for rows in dialogues.table:
        rows = rows[rows >= 0]
        first: dict[str, int] = {}
        numbers[rows] = [first.setdefault(name, len(first)) for name in speakers[rows]]
    return numbers

"""Units of training: rows of rows into the corpus. An utterance is one row, a dialogue up to L,
a history an utterance after the L - 1 turns before it.

Which rows of a unit there are, and which of them count, are two things: a dialogue is read as a
whole, but only the utterances of a fold's part are trained on or scored; the others are context,
of which nothing but features is ever looked at.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmer_jax.data.corpus import Corpus
from mmer_jax.errors import UserError, shorten

UNITS = ("utterance", "dialogue", "history")
OPEN = 16  # rows that dialogues are still put into


class Units(NamedTuple):
    """n rows of units, or tables of them: [..., L] for any leading axes.

    Attributes:
      rows: int32, in the order of turns; -1: no utterance, as between two dialogues in one row.
      counted: bool, what is trained on or scored; never where there is no utterance.
    """

    rows: np.ndarray
    counted: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


def empty(*shape: int) -> Units:
    """Units without utterances."""
    return Units(np.full(shape, -1, np.int32), np.zeros(shape, bool))


def places(units: Units, trial: int, rows: np.ndarray) -> np.ndarray:
    """[n]: where `rows` [n] of a trial stand in what is predicted of `units`, flat [S·U·L]."""
    found, counted = (x[:, trial].reshape(-1) for x in units)
    where = np.flatnonzero(counted)
    order = np.argsort(found[where])
    return where[order[np.searchsorted(found[where], rows, sorter=order)]]


@dataclasses.dataclass(frozen=True)
class Grouping:
    """Which rows of a corpus belong together.

    Attributes:
      table: [G, L] rows of each group in order, -1 at the end; every row of the corpus once.
    """

    table: np.ndarray

    @property
    def length(self) -> int:
        """L, the longest group."""
        return self.table.shape[1]

    def units(self, counted: np.ndarray, context: np.ndarray) -> Units:
        """The groups with a row that counts, as far as their rows count or are context.

        Args:
          counted, context: rows of the corpus, in any order.
        """
        part = np.zeros(self.table.max() + 2, np.int8)  # the last is that of row -1
        part[context] = 1
        part[counted] = 2
        found = part[self.table]
        groups = (found == 2).any(axis=1)
        order = np.argsort(found[groups] == 0, axis=1, kind="stable")  # closed up
        rows, found = (np.take_along_axis(x[groups], order, axis=1) for x in (self.table, found))
        return Units(np.where(found > 0, rows, -1).astype(np.int32), found == 2)

    def pack(self, units: Units) -> Units:
        """Whole units [n, L] side by side in fewer rows of the same L, in their order.

        Dialogues differ in length, and what fills up a row costs as much as what is in it. Each
        goes where it leaves the least room, of the last few rows that are still open.
        """
        sizes = (units.rows >= 0).sum(axis=1)
        if self.length == 1 or not len(sizes):
            return units
        places: list[tuple[int, int]] = []
        used: list[int] = []
        open_rows: list[int] = []
        for size in sizes:
            fitting = [r for r in open_rows if used[r] + size <= self.length]
            if fitting:
                row = max(fitting, key=used.__getitem__)
            else:
                row = len(used)
                used.append(0)
                open_rows = [*open_rows[1 - OPEN :], row]
            places.append((row, used[row]))
            used[row] += size + 1
        packed = empty(len(used), self.length)
        for i, (row, start) in enumerate(places):
            for whole, part in zip(packed, units, strict=True):
                whole[row, start : start + sizes[i]] = part[i, : sizes[i]]
        return packed


@dataclasses.dataclass(frozen=True)
class Histories:
    """Every row of a corpus after the turns before it in its dialogue.

    Attributes:
      table: [N, H + 1] rows, of unit n the last is n; -1 in front where there are fewer turns.
    """

    table: np.ndarray

    @classmethod
    def of(cls, dialogues: Grouping, turns: int) -> "Histories":
        """With at most `turns` turns before an utterance."""
        before = np.full((len(dialogues.table), turns), -1, np.int32)
        padded = np.concatenate([before, dialogues.table], axis=1)
        windows = np.lib.stride_tricks.sliding_window_view(padded, turns + 1, axis=1)
        windows = windows[dialogues.table >= 0]
        return cls(windows[np.argsort(windows[:, -1])])

    @property
    def length(self) -> int:
        """L = H + 1."""
        return self.table.shape[1]

    def units(self, counted: np.ndarray, context: np.ndarray) -> Units:
        """The utterances `counted`, after those turns that are counted or context."""
        table = self.table[np.sort(counted)]
        known = np.zeros(len(self.table) + 1, bool)  # the last is that of row -1
        known[counted] = known[context] = True
        there = known[table]
        order = np.argsort(there, axis=1, kind="stable")  # closed up towards the utterance
        rows = np.take_along_axis(np.where(there, table, -1), order, axis=1).astype(np.int32)
        last = np.zeros(rows.shape, bool)
        last[:, -1] = True
        return Units(rows, last)

    def pack(self, units: Units) -> Units:
        """As they are: the last place of a row is what is predicted."""
        return units


def make_grouping(
    corpus: Corpus, unit: str, dialogues: str = "column", history: int = 0
) -> Grouping | Histories:
    """The units of a corpus.

    Args:
      corpus: for dialogues and histories with the columns `dialogue` and `turn`.
      unit: one of `UNITS`.
      dialogues: "column", or "none" where every utterance is a dialogue of its own.
      history: how many turns before an utterance, of unit "history".

    Raises:
      UserError: a column is missing, an utterance has no dialogue, or turns cannot be ordered.
    """
    if unit == "history":
        return Histories.of(make_dialogues(corpus, dialogues), history)
    if unit == "utterance":
        return alone(len(corpus))
    return make_dialogues(corpus, dialogues)


def alone(count: int) -> Grouping:
    """Every one of `count` rows by itself."""
    return Grouping(np.arange(count, dtype=np.int32)[:, None])


def make_dialogues(corpus: Corpus, dialogues: str = "column") -> Grouping:
    """The dialogues of a corpus, as of `make_grouping`."""
    if dialogues == "none":
        return alone(len(corpus))
    missing = [name for name in ("dialogue", "turn") if name not in corpus.columns]
    if missing:
        raise UserError(
            "a method of dialogues needs the columns 'dialogue' and 'turn' in utterances.csv, "
            f"which has: {', '.join(corpus.columns)}. Where there are no dialogues, pass "
            "--config.data.dialogues=none: every utterance is then one of its own"
        )
    return group_turns(corpus.columns["dialogue"], corpus.columns["turn"], corpus.ids)


def group_turns(
    dialogues: Sequence[str] | np.ndarray, turns: Sequence[str] | np.ndarray, ids: np.ndarray
) -> Grouping:
    """Dialogues in the order of their names, the rows of each in the order of their turns.

    Args:
      dialogues: [N] names.
      turns: [N] numbers, which may be strings; no two alike in a dialogue.
      ids: [N], for messages.
    """
    dialogues = np.asarray(dialogues, str)
    if (dialogues == "").any():
        raise UserError(
            f"{int((dialogues == '').sum())} utterance(s) have no dialogue: "
            f"{shorten(ids[dialogues == ''])}; give each one, a name of its own where it is alone"
        )
    numbers = _numbers(np.asarray(turns, str), dialogues, ids)
    order = np.lexsort((numbers, dialogues))
    names, starts, counts = np.unique(dialogues[order], return_index=True, return_counts=True)
    alike = (np.diff(numbers[order]) == 0) & (dialogues[order][1:] == dialogues[order][:-1])
    if alike.any():
        two = order[np.flatnonzero(alike)[0] :][:2]
        raise UserError(
            f"dialogue '{dialogues[two[0]]}' has more than one turn {turns[two[0]]}: "
            f"{shorten(ids[two])}; number its turns, each once"
        )
    place = np.arange(counts.max())
    inside = place < counts[:, None]
    table = np.full((len(names), counts.max()), -1, np.int32)
    table[inside] = order[(starts[:, None] + place)[inside]]
    return Grouping(table)


def _numbers(turns: np.ndarray, dialogues: np.ndarray, ids: np.ndarray) -> np.ndarray:
    def number(text: str) -> float:
        try:
            return float(text)
        except ValueError:
            return np.nan

    found = np.array([number(text) for text in turns])
    wrong = np.flatnonzero(~np.isfinite(found))
    if len(wrong):
        row = wrong[0]
        raise UserError(
            f"dialogue '{dialogues[row]}', utterance {ids[row]}: turn '{turns[row]}' is no number, "
            "and turns are ordered by their numbers"
        )
    return found

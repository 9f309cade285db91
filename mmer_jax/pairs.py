"""How often the classes of two tasks go together: among the labels, and in what models say.

A run with two tasks leaves both in pairs.npz, for the report's picture.
"""

import dataclasses
from pathlib import Path

import numpy as np

from mmer_jax.data.arrays import BadArray, read_npz
from mmer_jax.data.corpus import Corpus, CorpusSpec
from mmer_jax.errors import UserError

FILE = "pairs.npz"


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Counts [C0, C1] of the classes of two tasks.

    Attributes:
      names: of the tasks.
      classes: of each.
      labels: of the corpus's utterances that have both labels.
      predictions: of test utterances under full modality, summed over trials.
    """

    names: tuple[str, str]
    classes: tuple[list[str], list[str]]
    labels: np.ndarray
    predictions: np.ndarray


def count(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """[C0, C1] counts of the classes [n] of two tasks; a negative one is none."""
    counts = np.zeros(shape, np.int64)
    both = (first >= 0) & (second >= 0)
    np.add.at(counts, (first[both], second[both]), 1)
    return counts


def cramers_v(counts: np.ndarray) -> float:
    """Cramér's V of a table of counts: 0, no association, to 1, one says all of the other.

    Classes that do not occur do not count; 0 where a task has a single one.
    """
    counts = np.asarray(counts, np.float64)
    counts = counts[counts.sum(axis=1) > 0][:, counts.sum(axis=0) > 0]
    smaller = min(counts.shape) - 1
    if smaller < 1:
        return 0.0
    total = counts.sum()
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / total
    return float(np.sqrt(((counts - expected) ** 2 / expected).sum() / total / smaller))


def chance_ratio(counts: np.ndarray) -> np.ndarray:
    """How many times as often as by chance two classes go together; NaN where one never occurs."""
    counts = np.asarray(counts, np.float64)
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / max(counts.sum(), 1)
    return np.divide(counts, expected, out=np.full_like(counts, np.nan), where=expected > 0)


class PairCounts:
    """Counts what models say of test utterances; nothing unless there are two tasks."""

    def __init__(self, spec: CorpusSpec):
        self.spec = spec
        self.counts = np.zeros([len(task.classes) for task in spec.tasks], np.int64)

    def add(self, outputs: np.ndarray) -> None:
        """`outputs` [n, C] of all tasks side by side."""
        if len(self.spec.tasks) == 2:
            first, second = (x.argmax(axis=-1) for x in self.spec.split(outputs))
            self.counts += count(first, second, self.counts.shape)

    def save(self, workdir: Path, corpus: Corpus) -> None:
        """Write pairs.npz, if anything was counted; else remove an earlier one."""
        (workdir / FILE).unlink(missing_ok=True)
        if len(self.spec.tasks) != 2 or not self.counts.any():
            return
        first, second = self.spec.tasks
        np.savez_compressed(
            workdir / FILE,
            labels=count(corpus.labels[:, 0], corpus.labels[:, 1], self.counts.shape),
            predictions=self.counts,
            names=np.array([first.name, second.name]),
            first=np.array(first.classes),
            second=np.array(second.classes),
        )


def read(path: Path) -> Pairs | None:
    """What `PairCounts.save` wrote; None if there is no such file.

    Raises:
      UserError: damaged.
    """
    if not path.exists():
        return None
    try:
        file = read_npz(path)
        names, first, second = ([str(x) for x in file[k]] for k in ("names", "first", "second"))
        labels, predictions = file["labels"], file["predictions"]
        if {labels.shape, predictions.shape} != {(len(first), len(second))} or len(names) != 2:
            raise ValueError(f"shapes {labels.shape} and {predictions.shape}")
    except (BadArray, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error}); delete it, and the report goes "
            "without the picture of pairs"
        ) from None
    return Pairs((names[0], names[1]), (first, second), labels, predictions)

"""How hard utterances are and whom they resemble: what hardness.csv says, in numbers."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
from scipy import stats

from mmer_jax.errors import UserError
from mmer_jax.study import FIRST

MEASURES = ("hardness", "similarity")  # of which one is shown


@dataclasses.dataclass(frozen=True)
class Study:
    """The test utterances of a run under each pattern, n lines.

    Attributes:
      trials: [n, 2], fold and seed.
      available: [n] names of patterns.
      error: [n], 0 or 1 for classes, else the distance from the label; NaN without a label.
      measures: name -> [n], NaN where there is none.
      distances: [n, d] of each neighbour's label, as `error`; NaN without a neighbour or label.
      chance: (fold, seed) -> mean distance between the labels of two test utterances.
      classes: whether labels are classes.
    """

    trials: np.ndarray
    available: np.ndarray
    error: np.ndarray
    measures: dict[str, np.ndarray]
    distances: np.ndarray
    chance: dict[tuple[int, int], float]
    classes: bool

    @property
    def measure(self) -> str | None:
        """What error is shown against."""
        return next((name for name in MEASURES if name in self.measures), None)

    @property
    def patterns(self) -> list[str]:
        return list(dict.fromkeys(self.available.tolist()))

    @property
    def metric(self) -> str:
        """How a mean of errors or distances is written."""
        return "error" if self.classes else "MAE"

    def trial(self, lines: np.ndarray) -> tuple[int, int]:
        """Of lines of one trial."""
        fold, seed = self.trials[lines[0]].tolist()
        return fold, seed

    def parts(self, pattern: str) -> list[np.ndarray]:
        """The lines of each trial under a pattern."""
        lines = np.flatnonzero(self.available == pattern)
        which = np.unique(self.trials[lines], axis=0, return_inverse=True)[1].reshape(-1)
        return [lines[which == number] for number in range(which.max() + 1)]


def read(path: Path, *, classes: bool) -> Study | None:
    """hardness.csv of a workdir; None where there is none or nothing of test utterances in it.

    Raises:
      UserError: damaged.
    """
    if not path.exists():
        return None
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.reader(file)
            header = next(lines)
            if tuple(header[: len(FIRST)]) != FIRST:
                raise ValueError(f"its columns begin with {','.join(header[: len(FIRST)])}")
            split = FIRST.index("split")
            rows = [row for row in lines if row[split] == "test"]
        if any(len(row) != len(header) for row in rows):
            raise ValueError("a line has too few or too many cells")
        return _study(header, rows, classes) if rows else None
    except (ValueError, IndexError, StopIteration, OSError, csv.Error) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error}); delete it, and the report goes "
            "without hardness and neighbours"
        ) from None


def _study(header: list[str], rows: list[list[str]], classes: bool) -> Study:
    columns = dict(zip(header, map(np.array, zip(*rows, strict=True)), strict=True))
    names = header[len(FIRST) :]
    of_neighbours = [name for name in names if name.startswith("label")]
    measures = [name for name in names if not name.startswith(("neighbour", "label"))]
    trials = np.stack([columns["fold"], columns["seed"]], axis=1).astype(int)
    found = [_distance(columns["label"], columns[name], classes) for name in of_neighbours]
    first = columns["available"] == columns["available"][0]
    chance = {}
    for fold, seed in np.unique(trials, axis=0).tolist():
        mine = first & (trials == (fold, seed)).all(axis=1)
        chance[fold, seed] = _chance(columns["label"][mine], classes)
    return Study(
        trials=trials,
        available=columns["available"],
        error=_floats(columns["error"]),
        measures={name: _floats(columns[name]) for name in measures},
        distances=np.stack(found, axis=1),
        chance=chance,
        classes=classes,
    )


def _floats(cells: np.ndarray) -> np.ndarray:
    return np.array([float(cell) if cell else np.nan for cell in cells.tolist()])


def _distance(a: np.ndarray, b: np.ndarray, classes: bool) -> np.ndarray:
    if not classes:
        return np.abs(_floats(a) - _floats(b))
    return np.where((a == "") | (b == ""), np.nan, (a != b).astype(float))


def _chance(labels: np.ndarray, classes: bool) -> float:
    """Mean distance between labels of two utterances drawn at random."""
    labels = labels[labels != ""]
    if not len(labels):
        return float("nan")
    if classes:
        share = np.unique(labels, return_counts=True)[1] / len(labels)
        return float(1 - np.sum(share**2))
    ranked = np.sort(_floats(labels))
    weights = 2 * np.arange(len(ranked)) - len(ranked) + 1
    return float(2 * np.sum(weights * ranked) / len(ranked) ** 2)


def label_distance(study: Study, lines: np.ndarray, top: int) -> float | None:
    """Mean over utterances of the mean over their `top` nearest neighbours that have a label."""
    found = study.distances[lines, :top]
    there = np.isfinite(found)
    counts = there.sum(axis=1)
    if top > study.distances.shape[1] or not counts.any():
        return None
    sums = np.where(there, found, 0.0).sum(axis=1)
    return float(np.mean(sums[counts > 0] / counts[counts > 0]))


def error_by_measure(
    study: Study, lines: np.ndarray, groups: int
) -> tuple[list[float], list[float]] | None:
    """(mean measure, mean error) of groups of equal size, by rising measure; None if too few."""
    lines = _measured(study, lines)
    if len(lines) < groups:
        return None
    assert study.measure is not None
    values, error = study.measures[study.measure][lines], study.error[lines]
    parts = np.array_split(np.argsort(values, kind="stable"), groups)
    return [float(values[p].mean()) for p in parts], [float(error[p].mean()) for p in parts]


def rank_correlation(study: Study, lines: np.ndarray) -> float | None:
    """Spearman's, of the measure and the error; None where either is the same everywhere."""
    lines = _measured(study, lines)
    if study.measure is None or len(lines) < 3:
        return None
    values, error = study.measures[study.measure][lines], study.error[lines]
    if np.ptp(values) == 0 or np.ptp(error) == 0:
        return None
    return float(stats.spearmanr(values, error).statistic)


def _measured(study: Study, lines: np.ndarray) -> np.ndarray:
    """Those lines that have both the measure and an error."""
    if study.measure is None:
        return lines[:0]
    known = np.isfinite(study.measures[study.measure][lines]) & np.isfinite(study.error[lines])
    return lines[known]

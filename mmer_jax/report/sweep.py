"""sweep.csv: the points of a hyper-parameter sweep and what validation says of them."""

import csv
import dataclasses
import math
from pathlib import Path

from mmer_jax.errors import UserError

FIXED = ("point", "fold", "seed", "validation_score", "best_epoch", "chosen")


@dataclasses.dataclass(frozen=True)
class SweepPoint:
    """One combination of swept values.

    Attributes:
      overrides: swept key -> value as written in sweep.csv.
      scores: best validation score of each of its trials; not finite where training diverged.
    """

    number: int
    overrides: dict[str, str]
    scores: list[float]
    chosen: bool

    @property
    def diverged(self) -> bool:
        return not all(map(math.isfinite, self.scores))


def read_sweep(path: Path) -> list[SweepPoint]:
    """Points in ascending order; none if there is no such file.

    Raises:
      UserError: damaged, or not exactly one point is marked as chosen.
    """
    if not path.exists():
        return []
    try:
        points = _read(path)
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error}); expected the columns "
            f"{','.join(FIXED)} and one per swept key"
        ) from None
    chosen = [point.number for point in points if point.chosen]
    if len(chosen) != 1:
        raise UserError(
            f"{path} marks {len(chosen)} points as chosen ({chosen}), expected one; run "
            "mmer_jax.main on the workdir to the end, then the report"
        )
    return points


def _read(path: Path) -> list[SweepPoint]:
    points: dict[int, SweepPoint] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            number = int(row["point"])
            overrides = {str(key): row[key] for key in row if key not in FIXED}
            point = points.setdefault(
                number, SweepPoint(number, overrides, [], bool(int(row["chosen"])))
            )
            point.scores.append(float(row["validation_score"]))
    return [points[number] for number in sorted(points)]


def numeric_values(points: list[SweepPoint], key: str) -> list[float] | None:
    """Values of `key` at each point, or None if they are no numbers or all the same."""
    try:
        values = [float(point.overrides[key]) for point in points]
    except (ValueError, TypeError):
        return None
    return values if len(set(values)) > 1 else None

"""results.csv, long form: one line for each fold, seed, condition and metric."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

from mmer_jax.records import write_atomically


@dataclasses.dataclass(frozen=True)
class Result:
    """A line of results.csv; `value` is text so that reading and writing change nothing."""

    method: str
    dataset: str
    fold: int
    seed: int
    split: str
    protocol: str
    condition: str
    metric: str
    value: str
    n: int


FIELDS = [field.name for field in dataclasses.fields(Result)]


def write_results(path: Path, results: Sequence[Result]) -> None:
    """Write results.csv as a whole."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    writer.writerows(dataclasses.astuple(result) for result in results)
    write_atomically(path, text.getvalue())


def read_results(path: Path) -> list[Result]:
    """The lines of results.csv; none if there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Result(
                **{**row, "fold": int(row["fold"]), "seed": int(row["seed"]), "n": int(row["n"])}
            )
            for row in csv.DictReader(file)
        ]

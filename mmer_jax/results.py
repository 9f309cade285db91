"""results.csv, long form: one line for each fold, seed, condition and metric."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

from mmer_jax.errors import UserError
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
AGAIN = "Delete it and run mmer_jax.main on the workdir again: it scores without training."


def write_results(path: Path, results: Sequence[Result]) -> None:
    """Write results.csv as a whole."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    writer.writerows(dataclasses.astuple(result) for result in results)
    write_atomically(path, text.getvalue())


def read_results(path: Path) -> list[Result]:
    """The lines of results.csv; none if there is no such file.

    Raises:
      UserError: it is damaged.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_parsed(row) for row in csv.DictReader(file)]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(
            f"{path} is damaged or no results.csv of mmer_jax ({type(error).__name__}: {error}); "
            f"expected the columns {','.join(FIELDS)}. {AGAIN}"
        ) from None


def _parsed(row: dict) -> Result:
    numbers = {name: int(row[name]) for name in ("fold", "seed", "n")}
    return Result(**{**row, **numbers})

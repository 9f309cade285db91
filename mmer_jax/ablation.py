"""Every point of a sweep as a run of its own, scored on test, and one report that compares them.

A sweep chooses a point by validation and scores that one alone; an ablation shows what each
setting is worth, and the paired tests of the report say whether a difference is more than chance.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mmer_jax import distributed, mirror, report
from mmer_jax.records import LOCK, one_at_a_time
from mmer_jax.scoring import STAMP
from mmer_jax.sweep import Point
from mmer_jax.train import run

BASE = "as_configured"  # the point without overrides


def run_each(
    points: Sequence[Point], workdir: Path, console: Console, *, worker: int | None = None
) -> None:
    """Train and score the points in workdir/NAME, one after the other; resumes what is there.

    Args:
      points: of a sweep.
      workdir: holds a workdir for each point, and report/ of all of them.
      console: for progress and tables.
      worker: as of `run`; the workers go through the points together.

    Raises:
      UserError, Interrupted: as of `run`.
    """
    folders = [workdir / name for name in names(points)]
    for number, (point, folder) in enumerate(zip(points, folders, strict=True), start=1):
        console.print(f"run {number} of {len(points)}: {folder.name}", markup=False)
        run(point.config, folder, console, worker=worker)

    def compare() -> str | None:
        if worker is not None and not all((folder / STAMP).exists() for folder in folders):
            return None
        with one_at_a_time(workdir / LOCK):
            path = report.write_report(workdir / "report", folders)
        mirror.publish(workdir)
        return str(path)

    path = distributed.on_first(compare)
    if path is None:
        console.print("other workers still train; who ends last compares the runs")
        return
    console.print(f"comparison   {path}", highlight=False, markup=False, soft_wrap=True)


def names(points: Sequence[Point]) -> list[str]:
    """Folders of the points: their overrides, by the last part of a key where that suffices."""
    short = [_name({k.rpartition(".")[2]: v for k, v in p.overrides.items()}) for p in points]
    full = [_name(point.overrides) for point in points]
    return [s if short.count(s) == 1 else f for s, f in zip(short, full, strict=True)]


def _name(overrides) -> str:
    values = {k: re.sub(r"[^\w.+-]+", "_", str(v)).strip("_") for k, v in overrides.items()}
    return ",".join(f"{key}={value}" for key, value in values.items()) or BASE

"""From trained trials to results: the point that validation chooses, its test scores, the report.

sweep.csv        every trial of every point, where there are several
results.csv      test scores of the chosen point's trials
evaluated.json   what results.csv holds; it is gone while that changes
report/
"""

import csv
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from mmer_jax import distributed, mirror, report
from mmer_jax.checkpoint import Finished, final_entries, parse_finished
from mmer_jax.config import flat
from mmer_jax.data.protocols import Condition, mask_digests, save_masks
from mmer_jax.errors import UserError
from mmer_jax.evaluate import evaluate_trials
from mmer_jax.experiment import Experiment
from mmer_jax.integrity import Damaged, digest_of, read_signed, write_signed
from mmer_jax.records import write_atomically
from mmer_jax.results import Result, read_results, write_results
from mmer_jax.sweep import Point
from mmer_jax.trials import Group, Trial

STAMP = "evaluated.json"


def make_results(
    experiment: Experiment,
    groups: Sequence[Group],
    conditions: Sequence[Condition],
    workdir: Path,
    console: Console,
    started: float,
) -> list[Result]:
    """Choose, score and report; every trial of `groups` is trained.

    Args:
      conditions: what to score.
      started: when the run was, by the monotonic clock.
    """
    distributed.first_then_others(lambda: _share(workdir))
    done = finished_for_all(workdir)
    trials = [trial for group in groups for trial in group.trials]
    trials.sort(key=lambda trial: (trial.point.number, trial.fold, trial.seed))
    points = list({trial.point.number: trial.point for trial in trials}.values())
    chosen = _choose(points, trials, done)
    distributed.on_first(lambda: _write_sweep(workdir / "sweep.csv", trials, done, chosen))
    if len(points) > 1:
        console.print(f"chosen by validation: point {chosen.number} ({chosen})", markup=False)
    mine = [trial for trial in trials if trial.point is chosen]
    for line in _diverged(mine, done):
        console.print(f"diverged: {line}", highlight=False, markup=False, soft_wrap=True)
    results = _test(experiment, groups, mine, done, conditions, workdir)
    seconds = time.monotonic() - started
    devices = f"{jax.device_count()} {jax.devices()[0].device_kind}"
    facts = {"time of this process": f"{seconds:.0f} s on {devices}"}
    path = distributed.on_first(
        lambda: str(report.write_report(workdir / "report", [workdir], facts=facts, own=True))
    )
    distributed.on_first(lambda: mirror.publish(workdir))
    console.print(report.terminal_table(results))
    for name, place in (
        ("report", path),
        ("results", workdir / "results.csv"),
        ("checkpoints", workdir / "checkpoints"),
    ):
        console.print(f"{name:12} {place}", highlight=False, markup=False, soft_wrap=True)
    return results


def finished_for_all(workdir: Path) -> dict[str, Finished]:
    """The trained trials, as the first process finds them."""
    return parse_finished(distributed.on_first(lambda: final_entries(workdir)))


def _share(workdir: Path) -> None:
    """Of a workdir in a bucket: what the first process has trained comes to the others."""
    mirror.publish(workdir) if distributed.is_first() else mirror.renew(workdir)


def _choose(
    points: Sequence[Point], trials: Sequence[Trial], done: Mapping[str, Finished]
) -> Point:
    """The point with the best mean validation score over its folds and seeds; the first of equals.

    Test scores play no part: they do not exist yet. A point that lost a trial is compared with none
    that has all. A single point needs no score, which imported trials do not have.
    """
    if len(points) == 1:
        return points[0]
    scores = {
        point.number: np.mean(
            [done[trial.key].validation_score for trial in trials if trial.point is point]
        )
        for point in points
    }
    usable = [point for point in points if np.isfinite(scores[point.number])]
    if not usable:
        raise UserError("training diverged at every point of the sweep; try lower learning rates")
    return max(usable, key=lambda point: scores[point.number])


def _test(
    experiment: Experiment,
    groups: Sequence[Group],
    trials: Sequence[Trial],
    done: Mapping[str, Finished],
    conditions: Sequence[Condition],
    workdir: Path,
) -> list[Result]:
    """Test scores of the trials, once: as long as nothing about them changes they are read back."""
    config = experiment.config
    scored = [trial for trial in trials if not done[trial.key].lost]
    if not scored:
        raise UserError("training diverged in every trial; try a lower learning rate")
    stamp: dict[str, object] = {
        "trials": [trial.key for trial in scored],
        "eval": {k: v for k, v in flat(config).items() if k.startswith(("eval.", "noise."))},
        "masks": mask_digests(conditions, experiment.corpus, config.noise),
    }
    if diverged := _diverged(trials, done):
        stamp["diverged"] = diverged
    path, stamp_path = workdir / "results.csv", workdir / STAMP

    def begin() -> bool:
        if _is_scored(path, stamp_path, stamp):
            return False
        stamp_path.unlink(missing_ok=True)
        save_masks(workdir / "masks", conditions, experiment.corpus)
        return True

    if not distributed.on_first(begin):
        return read_results(path)
    width = next(group.width for group in groups if scored[0] in group.trials)
    results = evaluate_trials(experiment, scored, width, done, conditions, workdir)

    def end() -> None:
        write_results(path, results)
        stamp["results"] = digest_of(path.read_bytes())
        write_signed(stamp_path, stamp)

    distributed.on_first(end)
    return results


def _is_scored(path: Path, stamp_path: Path, stamp: dict[str, object]) -> bool:
    """Whether results.csv, undamaged, is what `stamp` asks for."""
    try:
        mine = stamp | {"results": digest_of(path.read_bytes())}
        found = read_signed(stamp_path)
        return mine | found == mine and stamp.keys() <= found.keys()
    except (OSError, Damaged):
        return False


def _diverged(trials: Sequence[Trial], done: Mapping[str, Finished]) -> list[str]:
    """What the report says of each trial that diverged."""
    return [
        f"fold {trial.fold}, seed {trial.seed}: "
        + ". ".join(f"{found}; {found.consequence}" for found in done[trial.key].diverged)
        for trial in trials
        if done[trial.key].diverged
    ]


def _write_sweep(
    path: Path, trials: Sequence[Trial], done: Mapping[str, Finished], chosen: Point
) -> None:
    """sweep.csv: every trial of every point with its validation score; none for a single point."""
    if len({trial.point.number for trial in trials}) == 1:
        path.unlink(missing_ok=True)  # of an earlier run with a sweep
        return
    keys = list(dict.fromkeys(key for trial in trials for key in trial.point.overrides))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["point", "fold", "seed", "validation_score", "best_epoch", "chosen", *keys])
    for trial in trials:
        found = done[trial.key]
        values = flat(trial.point.config)
        writer.writerow(
            [
                trial.point.number,
                trial.fold,
                trial.seed,
                f"{found.validation_score:.6f}",
                found.best_epoch,
                int(trial.point is chosen),
                *(values[key] for key in keys),
            ]
        )
    write_atomically(path, text.getvalue())

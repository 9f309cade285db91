"""A run from start to end: data → trials → training → choice by validation → test scores → report.

    points × folds × seeds ─ groups ─┬─ stage 1 ── stage 2 ─┐
                                     ├─ ...                 ├─ best point ── test ── report
                                     └─ ...                 ┘

A run without a sweep has one point. Finished trials are found in the workdir and never trained
again, whatever has been added since.
"""

import contextlib
import csv
import io
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from mmer_jax import distributed, mirror, report
from mmer_jax import workdir as workdir_lib
from mmer_jax.checkpoint import Finished, begun_groups, final_entries, parse_finished
from mmer_jax.claims import Claims
from mmer_jax.config import check_values, flat
from mmer_jax.data.load import load_corpus
from mmer_jax.data.normalize import save_statistics
from mmer_jax.data.protocols import Condition, make_conditions, mask_digests, save_masks
from mmer_jax.data.speakers import with_speakers
from mmer_jax.data.splits import make_folds
from mmer_jax.data.unlabelled import read_unlabelled
from mmer_jax.errors import UserError
from mmer_jax.evaluate import evaluate_trials
from mmer_jax.experiment import Experiment
from mmer_jax.group import GroupTraining, n_epochs
from mmer_jax.integrity import Damaged, digest_of, read_signed, write_signed
from mmer_jax.interrupt import StopRequest
from mmer_jax.records import MetricsLog, Reporter, write_atomically
from mmer_jax.results import Result, read_results, write_results
from mmer_jax.sweep import Point, single_point
from mmer_jax.trials import Group, Trial, make_groups, make_trials, pending_groups
from mmer_jax.workers import train_share

STAMP = "evaluated.json"  # says what results.csv holds; it is gone while that changes
ON_CPU_AT_ONCE = 10  # more trials side by side gain nothing there and cost memory


def run(
    config,
    workdir: Path,
    console: Console,
    points: Sequence[Point] | None = None,
    *,
    worker: int | None = None,
) -> list[Result]:
    """Train and evaluate everything that is asked for; resumes what `workdir` holds.

    Args:
      config: of the run.
      workdir: where everything goes.
      console: for progress and the final table.
      points: of a sweep; the best by validation score is scored on test.
      worker: which of the workers that share the trials this is; None: there are no others.

    Returns:
      The lines of results.csv; none where another worker makes them.

    Raises:
      UserError: the input is faulty, or `workdir` belongs to another configuration.
      Interrupted: a signal came; a checkpoint is written.
    """
    started = time.monotonic()
    check_values(config)
    points = points or single_point(config)
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    with contextlib.ExitStack() as held:
        held.enter_context(workdir_lib.locked(workdir, shared=worker is not None))
        # The first process builds the records, if that is to be done; the others find them.
        corpus = distributed.first_then_others(lambda: load_corpus(config))
        if any(point.config.model.get("history", 0) for point in points):
            corpus = with_speakers(corpus, config.data.dialogues)
        folds = make_folds(
            corpus,
            config.data.splits,
            kfold=config.data.kfold,
            kfold_by=config.data.kfold_by,
            kfold_seed=config.data.kfold_seed,
            allow_speaker_overlap=config.data.allow_speaker_overlap,
        )
        conditions = make_conditions(corpus, config.eval)
        trials = make_trials(points, len(folds))
        groups = make_groups(trials, config.trials.max_parallel or _default_parallel())
        unlabelled = read_unlabelled(tuple(config.data.unlabelled), corpus)
        experiment = Experiment(config, corpus, folds, groups, unlabelled)
        claims = Claims(workdir, worker or 0, config.trials.heartbeat_seconds, say)
        overrides = [point.overrides for point in points]

        def prepare() -> None:
            with workdir_lib.preparing(workdir):
                workdir_lib.claim(workdir, config, corpus, unlabelled, sweep=overrides)
                save_statistics(workdir, experiment.statistics, experiment.label_statistics)
                if worker is not None:
                    held.enter_context(claims)

        distributed.on_first(prepare)
        about = _describe(experiment, trials, groups)
        if worker is None:
            _train(experiment, groups, workdir, console, about)
        else:
            say(about)
            if not train_share(experiment, groups, workdir, console, claims):
                return []
        distributed.first_then_others(lambda: _share(workdir))
        done = _finished(workdir)
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
        say(f"{name:12} {place}")
    return results


def _train(
    experiment: Experiment, groups: Sequence[Group], workdir: Path, console: Console, about: str
) -> None:
    """Train every trial that is not trained yet."""
    pending = pending_groups(
        groups,
        set(_finished(workdir)),
        distributed.on_first(lambda: begun_groups(workdir)),
        experiment.config.trials.max_parallel,
    )
    log = MetricsLog(workdir, tensorboard=experiment.config.log.tensorboard)
    distributed.on_first(log.gather)  # what workers have left

    def epochs(these: Sequence[Group]) -> Counter[str]:
        found: Counter[str] = Counter()
        for group in these:
            found.update({s.name: n_epochs(s) for s in experiment.stages(group.trials[0].point)})
        return found

    left = epochs(pending)
    done = max(0, epochs(groups).total() - left.total())
    is_sweep = len({trial.point.number for group in groups for trial in group.trials}) > 1
    drop = is_sweep or experiment.config.train.on_nonfinite == "drop_trial"
    grace = experiment.config.checkpoint.grace_seconds
    with StopRequest(grace) as stop, Reporter(console, left, done) as reporter:
        reporter.say(about)
        for number, group in enumerate(pending):
            reporter.of_group(number + 1, len(pending))
            training = GroupTraining(experiment, group, workdir, log, drop_diverged=drop)
            training.run(reporter, stop)


def _share(workdir: Path) -> None:
    """Of a workdir in a bucket: what the first process has trained comes to the others."""
    mirror.publish(workdir) if distributed.is_first() else mirror.renew(workdir)


def _finished(workdir: Path) -> dict[str, Finished]:
    """The trained trials, as the first process finds them."""
    return parse_finished(distributed.on_first(lambda: final_entries(workdir)))


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


def _default_parallel() -> int:
    return ON_CPU_AT_ONCE if jax.devices()[0].platform == "cpu" else 0


def _describe(experiment: Experiment, trials: Sequence[Trial], groups: Sequence[Group]) -> str:
    config, corpus = experiment.config, experiment.corpus
    modalities = ", ".join(
        f"{m.name} {m.max_steps}×{m.dim}" if m.is_sequence else f"{m.name} {m.dim}"
        for m in corpus.spec.modalities
    )
    labels = "; ".join(
        f"{task.name}: {', '.join(task.classes) or 'real-valued'}" for task in corpus.spec.tasks
    )
    points = len({trial.point.number for trial in trials})
    return (
        f"{config.method} on {corpus.name}: {int(corpus.labelled.sum())} labelled utterances, "
        f"{modalities}; {labels}\n"
        f"{len(trials)} trials ({f'{points} points × ' if points > 1 else ''}"
        f"{len({t.fold for t in trials})} of {len(experiment.folds)} folds by "
        f"{config.data.splits}, {config.trials.seeds} seed(s)) in {len(groups)} group(s) on "
        f"{jax.device_count()} {jax.devices()[0].platform} device(s)"
    )

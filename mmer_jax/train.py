"""A run from start to end: data → trials → training → choice by validation → test scores → report.

    points × folds × seeds ─ groups ─┬─ stage 1 ── stage 2 ─┐
                                     ├─ ...                 ├─ best point ── test ── report
                                     └─ ...                 ┘

A run without a sweep has one point. Finished trials are found in the workdir and never trained
again, whatever has been added since.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
from rich.console import Console

from mmer_jax import distributed
from mmer_jax import workdir as workdir_lib
from mmer_jax.checkpoint import begun_groups
from mmer_jax.claims import Claims
from mmer_jax.config import check_values
from mmer_jax.data.corpus import Corpus
from mmer_jax.data.load import load_corpus
from mmer_jax.data.normalize import save_statistics
from mmer_jax.data.protocols import make_conditions
from mmer_jax.data.speakers import with_speakers
from mmer_jax.data.splits import Fold, make_folds
from mmer_jax.data.unlabelled import read_unlabelled
from mmer_jax.experiment import Experiment
from mmer_jax.group import GroupTraining, n_epochs
from mmer_jax.interrupt import StopRequest
from mmer_jax.records import MetricsLog, Reporter
from mmer_jax.results import Result
from mmer_jax.scoring import finished_for_all, make_results
from mmer_jax.sweep import Point, single_point
from mmer_jax.trials import Group, Trial, make_groups, make_trials, pending_groups
from mmer_jax.workers import train_share

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
        corpus, folds = _read(config, points)
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
        say(_describe(experiment, trials, groups))
        if worker is None:
            _train(experiment, groups, workdir, console)
        elif not train_share(experiment, groups, workdir, console, claims):
            return []
        return make_results(experiment, groups, conditions, workdir, console, started)


def _read(config, points: Sequence[Point]) -> tuple[Corpus, list[Fold]]:
    """The corpus and its folds."""
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
    return corpus, folds


def _train(
    experiment: Experiment, groups: Sequence[Group], workdir: Path, console: Console
) -> None:
    """Train every trial that is not trained yet."""
    pending = pending_groups(
        groups,
        set(finished_for_all(workdir)),
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
    grace = experiment.config.checkpoint.grace_seconds
    with StopRequest(grace) as stop, Reporter(console, left, done) as reporter:
        for number, group in enumerate(pending):
            reporter.of_group(number + 1, len(pending))
            GroupTraining(experiment, group, workdir, log).run(reporter, stop)


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

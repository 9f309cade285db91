"""Training of the trials of one group: stages → epochs, from where the last checkpoint stands.

The epoch itself is a compiled program (programs.py). The host only orders rows, logs and saves.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmer_jax import distributed, recall
from mmer_jax import mesh as mesh_lib
from mmer_jax.checkpoint import GroupCheckpoints
from mmer_jax.errors import UserError
from mmer_jax.experiment import Experiment, GroupArrays
from mmer_jax.init_from import check, initial_params
from mmer_jax.interrupt import Interrupted, StopRequest
from mmer_jax.methods.stage import Params, Stage
from mmer_jax.metrics import score_name
from mmer_jax.programs import TrainState
from mmer_jax.records import MetricsLog, Reporter
from mmer_jax.trials import Group


class Trained(NamedTuple):
    """What training of a group ends with; [T] and leaves [T, ...] of its real trials."""

    params: dict[str, Params]  # best parameters of every stage
    validation_score: np.ndarray  # of the last stage's best epoch
    best_epoch: np.ndarray  # 0-based


class GroupTraining:
    """Training of the trials that run side by side.

    Args:
      experiment: what all groups share.
      group: the trials.
      workdir: where its checkpoints go.
      log: where metrics go.
      keep_going: a trial that diverges does not stop the others (sweeps).
      still_ours: raises where the group is no longer this process's to write (workers).
    """

    def __init__(
        self,
        experiment: Experiment,
        group: Group,
        workdir: Path,
        log: MetricsLog,
        *,
        keep_going: bool,
        still_ours: Callable[[], None] = lambda: None,
    ):
        self.experiment, self.group, self.log = experiment, group, log
        self.point = group.trials[0].point
        self.stages = experiment.stages(self.point)
        self.arrays = GroupArrays(experiment, group)
        self.init_from = self.point.config.train.init_from
        self.initial = initial_params(
            self.init_from, group.trials, [stage.name for stage in self.stages]
        )
        self.workdir = workdir
        self.checkpoints = GroupCheckpoints(workdir, group.name, [t.key for t in group.trials])
        self.keep_going, self._told = keep_going, False
        self.still_ours = still_ours
        self.saved_at = time.monotonic()

    def run(self, reporter: Reporter, stop: StopRequest) -> None:
        """Train all stages and store what they end with."""
        try:
            trained = self._train(reporter, stop)
            self._keep_databases(trained.params)
            self.still_ours()
            self.checkpoints.save_final(
                trained.params, trained.validation_score, trained.best_epoch
            )
        finally:
            self.checkpoints.close()

    def _train(self, reporter: Reporter, stop: StopRequest) -> Trained:
        done = self.checkpoints.latest()
        distributed.on_first(lambda: self.log.rewind(self.group.name, done))
        if done:
            reporter.say(f"group {self.group.name}: resuming after {done} epochs")
        earlier: dict[str, Params] = {}  # shapes only, until the checkpoint's are loaded
        before = 0  # epochs of the stages before
        state = None
        for index, stage in enumerate(self.stages):
            until = before + n_epochs(stage)
            reporter.skip(stage.name, min(max(done - before, 0), n_epochs(stage)))
            programs = self.experiment.programs(self.point, stage)
            data = self.arrays.trial_data(index)
            if done <= before:
                state = self._from_initial(stage.name, programs.init(data.key, earlier))
            else:
                state = jax.eval_shape(programs.init, data.key, earlier)
                if done <= until:
                    given = earlier | ({stage.name: state.params} if stage.refresh_epochs else {})
                    state, earlier = self._restore(done, state, given)
            if done < until:
                state = self._train_stage(
                    stage, programs, state, data, earlier, before, max(done, before), reporter, stop
                )
            earlier = earlier | {stage.name: state.best_params}
            before = until
        assert state is not None
        count = len(self.group.trials)
        scores, epochs = mesh_lib.fetch((state.best_score, state.best_epoch))
        return Trained(earlier, scores[:count], epochs[:count])

    def _keep_databases(self, params: dict[str, Params]) -> None:
        """What predictions of the last stage will search, into the workdir."""
        index, stage = len(self.stages) - 1, self.stages[-1]
        earlier = {name: params[name] for name in recall.needed(self.stages)}
        programs, data = self.experiment.programs(self.point, stage), self.arrays.trial_data(index)
        database = programs.database(earlier, data, self.arrays.known()) if stage.recalls else None
        if database is not None:
            data = programs.remember(data, earlier, database)
            recall.save(self.workdir, self.group.name, data, self.arrays.known_ids())

    def _from_initial(self, stage: str, state: TrainState) -> TrainState:
        """A fresh state, with the parameters of `train.init_from` where it has the stage."""
        if stage not in self.initial:
            return state
        given = self.initial[stage]
        one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), state)
        for params in given:
            check(self.init_from, stage, params, one.params)
        # Twice, because the epoch is given both and may overwrite either.
        first, best = (
            jax.tree.map(lambda *leaves: self.arrays.on_trials(leaves), *given) for _ in range(2)
        )
        return state._replace(params=first, best_params=best)

    def _restore(self, done: int, state, earlier) -> tuple[TrainState, dict[str, Params]]:
        """The checkpoint after `done` epochs in the shapes of `state` and `earlier`."""
        tree = self.checkpoints.load(done, {"state": state, "earlier": earlier})
        tree = mesh_lib.put(tree, mesh_lib.by_trial(self.experiment.mesh))
        return tree["state"], tree["earlier"]

    def _train_stage(
        self, stage, programs, state: TrainState, data, earlier, before, done, reporter, stop
    ) -> TrainState:
        """Epochs `done` to the end of the stage, counted from the first stage's first."""
        every = stage.refresh_epochs
        if every and stage.name not in earlier:
            earlier = self._refreshed(stage, earlier, state)
        prepared = self._prepare(stage, programs, earlier, data)
        rows = [fold.validation for fold in self.arrays.folds]
        validation = self.arrays.evaluation_tables(stage, rows)
        for number in range(done, before + n_epochs(stage)):
            epoch = number - before
            if every and epoch and epoch % every == 0:
                earlier = self._refreshed(stage, earlier, state)
                prepared = self._prepare(stage, programs, earlier, data)
            tick = time.monotonic()
            train = self.arrays.training_tables(stage, number)
            state, record = programs.train_epoch(
                state, prepared, self.experiment.feed, train, validation, epoch
            )
            count = len(self.group.trials)
            record = {k: v[:count] for k, v in mesh_lib.fetch(record).items()}
            self.still_ours()
            self._log(stage, epoch, number + 1, record, time.monotonic() - tick, reporter)
            self._checkpoint(number + 1, state, earlier, stop)
        return state

    def _prepare(self, stage, programs, earlier, data):
        inputs = self.arrays.prepare_inputs(stage)
        return programs.prepare(earlier, data, self.experiment.feed, *inputs)

    def _refreshed(self, stage, earlier, state: TrainState) -> dict[str, Params]:
        """`earlier` with what the stage's parameters are now: a copy, as epochs donate them."""
        return earlier | {stage.name: jax.tree.map(jnp.copy, state.params)}

    def _checkpoint(self, epochs_done: int, state, earlier, stop: StopRequest) -> None:
        every = self.experiment.config.checkpoint.every_seconds
        is_due = time.monotonic() - self.saved_at >= every and distributed.is_first()
        # A signal may have come to one process alone, and clocks differ.
        due, number = distributed.agree([is_due, stop.signal])
        if due or number:
            with stop.undisturbed():
                self.checkpoints.save(epochs_done, {"state": state, "earlier": earlier})
            self.saved_at = time.monotonic()
        if number:
            raise Interrupted(number)

    def _log(self, stage, epoch, epochs_done, record, seconds, reporter) -> None:
        self._check_finite(stage, epoch, record, reporter)
        rate = sum(len(fold.train) for fold in self.arrays.folds) / seconds
        shared = {
            "group": self.group.name,
            "stage": stage.name,
            "epoch": epoch + 1,
            "epochs_done": epochs_done,
            "seconds": round(seconds, 3),
            "utterances_per_second": round(rate, 1),
        }
        lines = [
            shared
            | {"trial": trial.key, "fold": trial.fold, "seed": trial.seed}
            | {name: float(values[i]) for name, values in record.items()}
            for i, trial in enumerate(self.group.trials)
        ]
        distributed.on_first(lambda: self.log.write(lines))
        terms = [k for k in record if k not in _NOT_SHOWN and not k.startswith("validation/")]
        score = score_name(self.experiment.corpus.spec, self.point.config.train.select)
        note = "  ".join(f"{name} {_mean(record[name]):.4f}" for name in terms)
        note += f"  val {score} {_mean(record['validation_score']):.4f}"
        note += f" (best {_mean(record['best_score']):.4f})  {rate:.0f} utt/s"
        reporter.epoch(stage.name, epoch + 1, n_epochs(stage), note, seconds)

    def _check_finite(self, stage, epoch: int, record, reporter: Reporter) -> None:
        for name, values in record.items():
            bad = np.flatnonzero(~np.isfinite(values))
            if name in _MAY_BE_INFINITE or not len(bad):
                continue
            message = (
                f"training diverged: {name} is {values[bad[0]]} in epoch {epoch + 1} of stage "
                f"{stage.name}, trial ({self.group.trials[bad[0]]})."
            )
            if self.keep_going:
                if not self._told:
                    reporter.say(f"{message} Its best epoch before counts; the others go on.")
                self._told = True
                return
            raise UserError(f"{message} Try a lower --config.stages.{stage.name}.learning_rate.")


_NOT_SHOWN = {
    "validation_score",
    "best_score",
    "best_epoch",
    "gradient_norm",
    "parameter_norm",
}
_MAY_BE_INFINITE = {"best_score"}  # of a trial whose every epoch diverged


def _mean(values: np.ndarray) -> float:
    """Over the trials that have not diverged."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def n_epochs(stage: Stage) -> int:
    return stage.settings.constant_epochs + stage.settings.decay_epochs

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

from mmer_jax import distributed, divergence, mirror, recall
from mmer_jax import mesh as mesh_lib
from mmer_jax.checkpoint import GroupCheckpoints
from mmer_jax.divergence import NOT_FINITE, Divergence
from mmer_jax.errors import UserError
from mmer_jax.experiment import Experiment, GroupArrays
from mmer_jax.init_from import check, initial_params
from mmer_jax.interrupt import StopRequest
from mmer_jax.methods.stage import Params, Stage
from mmer_jax.metrics import score_name
from mmer_jax.programs import TrainState
from mmer_jax.records import MetricsLog, Reporter
from mmer_jax.saving import Saving
from mmer_jax.trials import Group, Trial


class Trained(NamedTuple):
    """What training of a group ends with; [T] and leaves [T, ...] of its real trials."""

    params: dict[str, Params]  # best parameters of every stage
    validation_score: np.ndarray  # of the last stage's best epoch; -inf of a lost trial
    best_epoch: np.ndarray  # 0-based; -1 of a lost trial


class GroupTraining:
    """Training of the trials that run side by side.

    Args:
      experiment: what all groups share.
      group: the trials.
      workdir: where its checkpoints go.
      log: where metrics go.
      still_ours: raises where the group is no longer this run's to write (workers).
    """

    def __init__(
        self,
        experiment: Experiment,
        group: Group,
        workdir: Path,
        log: MetricsLog,
        *,
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
        self.still_ours = still_ours
        self.diverged: dict[str, list[Divergence]] = {}  # by trial key
        every = experiment.config.checkpoint.every_seconds
        self.saving = Saving(self.checkpoints, workdir, every)

    def run(self, reporter: Reporter, stop: StopRequest) -> None:
        """Train all stages and store what they end with."""
        trained = self._train(reporter, stop)
        self._keep_databases(trained.params)
        self.still_ours()
        self.checkpoints.save_final(
            trained.params, trained.validation_score, trained.best_epoch, self.diverged
        )
        distributed.on_first(lambda: mirror.publish(self.workdir))

    def _train(self, reporter: Reporter, stop: StopRequest) -> Trained:
        done = self._go_on(reporter)
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
        lost = [self._is_lost(trial) for trial in self.group.trials]
        scores, epochs = mesh_lib.fetch((state.best_score, state.best_epoch))
        return Trained(
            earlier, np.where(lost, -np.inf, scores[:count]), np.where(lost, -1, epochs[:count])
        )

    def _go_on(self, reporter: Reporter) -> int:
        """Epochs that are done; says what is damaged of what an earlier run has left."""
        done, self.diverged, damage = self.checkpoints.standing()
        for what in damage:
            reporter.say(f"group {self.group.name}: a checkpoint is damaged and deleted: {what}")
        if damage and not done:
            reporter.say(f"group {self.group.name}: no other is left; training from the start")
        damaged_lines = distributed.on_first(lambda: self.log.rewind(self.group.name, done))
        if damaged_lines:
            reporter.say(f"metrics.jsonl: {damaged_lines} damaged line(s) are left out")
        if done:
            reporter.say(f"group {self.group.name}: resuming after {done} epochs")
        return done

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
            tree = {"state": state, "earlier": earlier}
            self.saving.after_epoch(number + 1, tree, stop, self.diverged)
        return state

    def _prepare(self, stage, programs, earlier, data):
        inputs = self.arrays.prepare_inputs(stage)
        return programs.prepare(earlier, data, self.experiment.feed, *inputs)

    def _refreshed(self, stage, earlier, state: TrainState) -> dict[str, Params]:
        """`earlier` with what the stage's parameters are now: a copy, as epochs donate them."""
        return earlier | {stage.name: jax.tree.map(jnp.copy, state.params)}

    def _log(self, stage, epoch, epochs_done, record, seconds, reporter) -> None:
        counting = [i for i, t in enumerate(self.group.trials) if not self._is_out(t, stage.name)]
        self._check_finite(stage, epoch, record, reporter)
        record = {k: v[counting] for k, v in record.items() if not k.startswith(NOT_FINITE)}
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
            | {name: _number(values[i]) for name, values in record.items()}
            for i, trial in enumerate(self.group.trials[j] for j in counting)
        ]
        distributed.on_first(lambda: self.log.write(lines))
        terms = [k for k in record if k not in _NOT_SHOWN and not k.startswith("validation/")]
        score = score_name(self.experiment.corpus.spec, self.point.config.train.select)
        note = "  ".join(f"{name} {_mean(record[name]):.4f}" for name in terms)
        note += f"  val {score} {_mean(record['validation_score']):.4f}"
        note += f" (best {_mean(record['best_score']):.4f})  {rate:.0f} utt/s"
        reporter.epoch(stage.name, epoch + 1, n_epochs(stage), note, seconds)

    def _check_finite(self, stage, epoch: int, record, reporter: Reporter) -> None:
        """Refuse a record that is not finite, or note the trials that it drops."""
        for position, found in divergence.find(stage.name, epoch + 1, record).items():
            trial = self.group.trials[position]
            if self._is_out(trial, stage.name):
                continue
            message = f"training diverged: {found}, trial ({trial})"
            if not self.experiment.drops_diverged:
                raise UserError(
                    f"{message}. Try a lower --config.stages.{stage.name}.learning_rate, or go on "
                    "without this trial by --config.train.on_nonfinite=drop_trial"
                )
            self.diverged.setdefault(trial.key, []).append(found)
            reporter.say(f"{message}; {found.consequence}. The others go on.")

    def _is_lost(self, trial: Trial) -> bool:
        return any(found.lost for found in self.diverged.get(trial.key, []))

    def _is_out(self, trial: Trial, stage: str) -> bool:
        """Whether what the trial does in the stage counts no more."""
        known = self.diverged.get(trial.key, [])
        return self._is_lost(trial) or any(found.stage == stage for found in known)


_NOT_SHOWN = {
    "validation_score",
    "best_score",
    "best_epoch",
    "gradient_norm",
    "parameter_norm",
    "step",
}


def _number(value) -> float | None:
    """As JSON knows it, which has no NaN."""
    return float(value) if np.isfinite(value) else None


def _mean(values: np.ndarray) -> float:
    """Over the trials that have not diverged."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def n_epochs(stage: Stage) -> int:
    return stage.settings.constant_epochs + stage.settings.decay_epochs

"""The training loop of the speech part: epochs of batches from tf.data, seeds side by side.

Parameters carry a leading trial axis of seeds, sharded over the mesh like the other methods'; all
seeds read the same batches, whose rows are divided over the mesh's data axis. The order of batches
is a pure function of the epoch and randomness one of (seed, step), so that a resumed run ends
exactly where an uninterrupted one does.
"""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec
from rich.console import Console

from mmer_jax import config as config_lib
from mmer_jax import distributed, mirror
from mmer_jax import mesh as mesh_lib
from mmer_jax import workdir as workdir_lib
from mmer_jax.checkpoint import GroupCheckpoints, finished_trials, load_final
from mmer_jax.errors import UserError
from mmer_jax.interrupt import StopRequest
from mmer_jax.optimizer import decay_factor, make_optimizer
from mmer_jax.programs import TrainState
from mmer_jax.records import MetricsLog, Reporter
from mmer_jax.saving import Saving
from mmer_jax.speech import config as speech_config
from mmer_jax.speech.task import Task, make_task


def train(config, workdir: Path, console: Console) -> None:
    """Train what `config` says, to the end, and write what follows; resumes `workdir`.

    Raises:
      UserError: the input is faulty, or `workdir` belongs to another configuration.
      Interrupted: a signal came; a checkpoint is written.
    """
    speech_config.check_values(config)
    with workdir_lib.locked(workdir):
        task = distributed.first_then_others(lambda: make_task(config, workdir, console))
        distributed.on_first(lambda: _claim(workdir, config, task))
        trials = [f"seed{seed}" for seed in range(config.trials.seeds)]
        if not set(trials) <= finished_trials(workdir).keys():
            Training(config, task, workdir, trials).run(console)
        console.print(f"{task.name}: trained; scoring", highlight=False)

        def finish() -> None:
            task.finish(workdir, load_final(workdir, task.name)[task.name], console)
            mirror.publish(workdir)

        distributed.on_first(finish)


def _claim(workdir: Path, config, task: Task) -> None:
    mine = {"config": config_lib.flat(config), "facts": task.facts}

    def differences(theirs: dict, mine: dict) -> list[str]:
        found = workdir_lib.differences_of(
            theirs["config"], mine["config"], speech_config.INCIDENTAL
        )
        return found + workdir_lib.differences_of(theirs["facts"], mine["facts"])

    workdir_lib.claim_contents(workdir, mine, differences)


class Training:
    """Training of one task, for all seeds at once.

    Args:
      config: of the run.
      task: what is trained.
      workdir: where checkpoints and metrics go.
      trials: a key for each seed.
    """

    def __init__(self, config, task: Task, workdir: Path, trials: list[str]):
        self._config, self._task, self._trials = config, task, trials
        self._settings = task.settings
        size = self._settings.batch_size
        self._mesh = mesh_lib.make_mesh(len(trials), size, config.mesh.data, config.mesh.devices)
        self._count = mesh_lib.padded_count(len(trials), self._mesh)
        self._optimizer = make_optimizer(
            b1=self._settings.b1, weight_decay=self._settings.weight_decay, clip=self._settings.clip
        )
        self._step = jax.jit(self._one_step, donate_argnums=0)
        self._predict = jax.jit(jax.vmap(task.predict, in_axes=(0, None)))
        self._checkpoints = GroupCheckpoints(workdir, task.name, trials)
        self._log = MetricsLog(workdir, tensorboard=config.log.tensorboard)
        every = config.checkpoint.every_seconds
        self._saving = Saving(self._checkpoints, workdir, every)

    def run(self, console: Console) -> None:
        """From the last checkpoint to the last epoch."""
        epochs = self._settings.constant_epochs + self._settings.decay_epochs
        done, _, damage = self._checkpoints.standing()
        distributed.on_first(lambda: self._log.rewind(self._task.name, done))
        state = self._initial(done)
        dev = self._task.data.batches(self._task.dev_rows, self._settings.batch_size, None)
        grace = self._config.checkpoint.grace_seconds
        with StopRequest(grace) as stop, Reporter(console, {self._task.name: epochs}) as reporter:
            reporter.say(self._describe())
            for what in damage:
                reporter.say(f"a checkpoint is damaged and deleted: {what}")
            reporter.skip(self._task.name, done)
            for epoch in range(done, epochs):
                state = self._epoch(state, epoch, epochs, dev, reporter)
                self._saving.after_epoch(epoch + 1, state, stop)
        count = len(self._trials)
        scores, epochs_of = mesh_lib.fetch((state.best_score, state.best_epoch))
        self._checkpoints.save_final(
            {self._task.name: state.best_params}, scores[:count], epochs_of[:count]
        )

    def _describe(self) -> str:
        return (
            f"{self._task.name}: {len(self._task.train_rows)} training and "
            f"{len(self._task.dev_rows)} dev utterances, {len(self._trials)} seed(s) on "
            f"{self._mesh.size} {jax.devices()[0].platform} device(s)"
        )

    def _initial(self, done: int) -> TrainState:
        """A fresh state, or the checkpoint after `done` epochs."""

        def fresh(key) -> TrainState:
            params = self._task.init(key)
            return TrainState(
                params=params,
                optimizer=self._optimizer.init(params),
                step=jnp.zeros((), jnp.int32),
                best_params=jax.tree.map(jnp.copy, params),
                best_score=jnp.full((), -jnp.inf),
                best_epoch=jnp.full((), -1, jnp.int32),
            )

        if done:
            like = jax.eval_shape(jax.vmap(fresh), self._keys())
            state = self._checkpoints.load(done, like)
        else:
            state = jax.jit(jax.vmap(fresh))(self._keys())
        return mesh_lib.put(mesh_lib.fetch(state), mesh_lib.by_trial(self._mesh))

    def _keys(self):
        """[T] a key for each seed; trials that fill up the mesh repeat the last."""
        seeds = [min(i, len(self._trials) - 1) for i in range(self._count)]
        return jax.vmap(jax.random.key)(jnp.array(seeds))

    def _one_step(self, state: TrainState, batch, epoch, keys):
        factor = decay_factor(epoch, self._settings.constant_epochs, self._settings.decay_epochs)
        rate = self._settings.learning_rate * factor

        def of_trial(params, optimizer, step, key):
            rng = jax.random.fold_in(jax.random.fold_in(key, 1), step)
            grad = jax.value_and_grad(self._task.loss, has_aux=True)
            (_, metrics), gradient = grad(params, batch, rng, epoch)
            update, optimizer = self._optimizer.update(gradient, optimizer, params)
            params = jax.tree.map(lambda p, u: p - rate * u, params, update)
            metrics = metrics | {"gradient_norm": optax.tree.norm(gradient)}
            return params, optimizer, step + 1, metrics

        params, optimizer, step, metrics = jax.vmap(of_trial)(
            state.params, state.optimizer, state.step, keys
        )
        return state._replace(params=params, optimizer=optimizer, step=step), metrics

    def _put(self, batch):
        by_row = NamedSharding(self._mesh, PartitionSpec("data"))
        return mesh_lib.put(batch, by_row)

    def _epoch(self, state, epoch: int, epochs: int, dev, reporter: Reporter) -> TrainState:
        tick = time.monotonic()
        order = np.random.default_rng((0, epoch))
        data, keys = self._task.data, self._keys()
        number = jnp.asarray(epoch, jnp.int32)
        tables = data.batches(self._task.train_rows, self._settings.batch_size, order)
        records = []
        for batch in data.stream(tables):
            state, metrics = self._step(state, self._put(batch), number, keys)
            records.append(metrics)
        weights = [float((table >= 0).sum()) for table in tables]
        means = {
            name: np.average(mesh_lib.fetch([r[name] for r in records]), axis=0, weights=weights)
            for name in records[0]
        }
        self._check_finite(means, epoch)
        trained = time.monotonic() - tick
        scores = self._validate(state, dev)
        state = self._choose(state, scores, epoch)
        seconds = time.monotonic() - tick
        self._write(epoch, means, scores, len(self._task.train_rows) / trained, seconds)
        note = "  ".join(f"{k} {v.mean():.4f}" for k, v in means.items() if k != "gradient_norm")
        shown = {k: np.mean([s[k] for s in scores]) for k in scores[0] if k != "validation_score"}
        note += "  dev " + "  ".join(f"{k} {v:.4f}" for k, v in shown.items())
        reporter.epoch(self._task.name, epoch + 1, epochs, note, seconds)
        return state

    def _validate(self, state: TrainState, dev) -> list[dict[str, float]]:
        """Scores of each seed on the dev rows."""
        batches = list(self._task.data.stream(dev))
        outputs = [self._predict(state.params, self._put(batch)) for batch in batches]
        host = mesh_lib.fetch(outputs)

        def of_trial(number: int) -> dict[str, float]:
            return self._task.validate(batches, jax.tree.map(lambda x: x[number], host))

        return [of_trial(number) for number in range(len(self._trials))]

    def _choose(self, state: TrainState, scores, epoch: int) -> TrainState:
        """The best parameters so far, by dev score; of equal epochs the first."""
        values = [s["validation_score"] for s in scores]
        values += values[-1:] * (self._count - len(values))
        score = mesh_lib.put(np.array(values, np.float32), mesh_lib.by_trial(self._mesh))
        return _keep_better(state, score, jnp.asarray(epoch, jnp.int32))

    def _check_finite(self, means: dict[str, np.ndarray], epoch: int) -> None:
        for name, values in means.items():
            bad = np.flatnonzero(~np.isfinite(values))
            if len(bad):
                raise UserError(
                    f"training diverged: {name} is {values[bad[0]]} in epoch {epoch + 1}, seed "
                    f"{bad[0]}. Try a lower --config.stages.{self._task.name}.learning_rate."
                )

    def _write(self, epoch: int, means, scores, rate: float, seconds: float) -> None:
        shared = {
            "group": self._task.name,
            "stage": self._task.name,
            "epoch": epoch + 1,
            "epochs_done": epoch + 1,
            "seconds": round(seconds, 3),
            "utterances_per_second": round(rate, 1),
            "fold": 0,
        }
        lines = [
            shared
            | {"trial": trial, "seed": t}
            | {name: float(values[t]) for name, values in means.items()}
            | {
                name if name == "validation_score" else f"validation/{name}": float(value)
                for name, value in scores[t].items()
            }
            for t, trial in enumerate(self._trials)
        ]
        distributed.on_first(lambda: self._log.write(lines))


@jax.jit
def _keep_better(state: TrainState, score, epoch) -> TrainState:
    better = score > state.best_score

    def choose(new, old):
        return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return state._replace(
        best_params=jax.tree.map(choose, state.params, state.best_params),
        best_score=jnp.where(better, score, state.best_score),
        best_epoch=jnp.where(better, epoch, state.best_epoch),
    )

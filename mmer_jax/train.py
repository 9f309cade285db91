"""Training: groups of trials → stages → epochs, and what survives an interruption.

    corpus ─ folds ─ trials ─┬─ group 0 ── stage 1 ── stage 2 ── evaluate ─┬─ results.csv, report
                             └─ group 1 ── ...                             ┘

The epoch itself is a compiled program (programs.py). The host only orders rows, logs and saves.
"""

import json
import math
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from mmer_jax import config as config_lib
from mmer_jax import mesh as mesh_lib
from mmer_jax.checkpoint import GroupCheckpoints, pad_trials
from mmer_jax.data.corpus import Corpus
from mmer_jax.data.feed import Feed
from mmer_jax.data.load import load_corpus
from mmer_jax.data.normalize import Statistics, fold_statistics
from mmer_jax.data.splits import Fold, make_folds
from mmer_jax.errors import UserError
from mmer_jax.evaluate import Result, conditions, read_results, score_trial, write_results
from mmer_jax.interrupt import Interrupted, StopRequest
from mmer_jax.methods import make_stages
from mmer_jax.methods.stage import Params, Stage
from mmer_jax.programs import Programs, TrainState, TrialData
from mmer_jax.records import MetricsLog, Reporter, write_atomically
from mmer_jax.report import terminal_table, write_report
from mmer_jax.trials import Trial, epoch_order, fill_up, make_groups, make_trials, stack_tables


def run(config, workdir: Path, console: Console) -> list[Result]:
    """Train and evaluate everything that `config` asks for; resumes what `workdir` holds.

    Returns:
      The lines of results.csv.
    Raises:
      UserError: the input is faulty, or `workdir` belongs to another configuration.
      Interrupted: a signal came; a checkpoint is written.
    """
    started = time.monotonic()
    config_lib.check_values(config)
    corpus = load_corpus(config)
    folds = make_folds(
        corpus,
        config.data.splits,
        kfold=config.data.kfold,
        kfold_by=config.data.kfold_by,
        kfold_seed=config.data.kfold_seed,
        allow_speaker_overlap=config.data.allow_speaker_overlap,
    )
    trials = make_trials(config, len(folds))
    groups = make_groups(trials, config.trials.max_parallel)
    experiment = Experiment(config, corpus, folds, len(groups[0]))
    claim_workdir(workdir, config, corpus)

    n_epochs = sum(_epochs(stage) for stage in experiment.stages)
    results = read_results(workdir / "results.csv")
    log = MetricsLog(workdir, tensorboard=config.log.tensorboard)
    with StopRequest() as stop, Reporter(console, n_epochs * len(groups)) as reporter:
        reporter.say(_describe(config, corpus, folds, trials, groups))
        for number, group in enumerate(groups):
            if {(r.fold, r.seed) for r in results} >= {(t.fold, t.seed) for t in group}:
                reporter.skip(n_epochs)
                continue
            results += GroupTraining(experiment, group, number, workdir, log).run(reporter, stop)
            write_results(workdir / "results.csv", results)
    path = write_report(
        workdir / "report",
        results,
        {
            "trials": f"{len(trials)} ({', '.join(map(str, trials[:3]))}, ...)",
            "modalities": ", ".join(corpus.spec.names),
            "time of this process": f"{time.monotonic() - started:.0f} s on "
            f"{jax.device_count()} {jax.devices()[0].device_kind}",
        },
    )
    console.print(terminal_table(results))
    for name, place in (
        ("report", path),
        ("results", workdir / "results.csv"),
        ("checkpoints", workdir / "checkpoints"),
    ):
        console.print(f"{name:12} {place}", highlight=False, markup=False, soft_wrap=True)
    return results


class Experiment:
    """What all groups of trials share: the corpus on the devices and the compiled programs."""

    def __init__(self, config, corpus: Corpus, folds: list[Fold], n_parallel: int):
        """`n_parallel` is the size of the largest group; smaller ones are filled up to it."""
        self.config, self.corpus, self.folds = config, corpus, folds
        self.stages = make_stages(config, corpus.spec)
        self.statistics: Statistics = fold_statistics(
            corpus, [fold.train for fold in folds], config.data.normalize
        )
        sizes = [config.eval.batch_size, *(stage.settings.batch_size for stage in self.stages)]
        self.mesh: Mesh = mesh_lib.make_mesh(
            n_parallel, math.gcd(*sizes), config.mesh.data, config.mesh.devices
        )
        self.n_parallel = mesh_lib.padded_count(n_parallel, self.mesh)
        self.feed = Feed(
            corpus,
            self.mesh,
            placement=config.data.placement,
            memory_budget=config.data.memory_budget_gb * 2**30,
        )
        sampled = config.train.patterns == "sample"
        self.programs = {
            stage.name: Programs(stage, corpus.spec, self.mesh, sampled=sampled)
            for stage in self.stages
        }


class GroupTraining:
    """Training of the trials that run side by side."""

    def __init__(
        self,
        experiment: Experiment,
        group: list[Trial],
        number: int,
        workdir: Path,
        log: MetricsLog,
    ):
        self.experiment, self.group, self.number, self.log = experiment, group, number, log
        self.config, self.corpus = experiment.config, experiment.corpus
        self.stages, self.feed, self.mesh = experiment.stages, experiment.feed, experiment.mesh
        self.count = experiment.n_parallel
        self.batch_size = self.config.eval.batch_size
        self.folds = [experiment.folds[trial.fold] for trial in group]
        self.checkpoints = GroupCheckpoints(workdir, number)
        self.statistics = {
            name: tuple(self._on_trials([part[trial.fold] for trial in group]) for part in parts)
            for name, parts in experiment.statistics.items()
        }
        self.saved_at = time.monotonic()

    def run(self, reporter: Reporter, stop: StopRequest) -> list[Result]:
        """Train all stages from where the last checkpoint stands, then score the test rows."""
        try:
            earlier = self.checkpoints.load_final()
            if earlier is None:
                earlier = self._train(reporter, stop)
                self.checkpoints.save_final(earlier, len(self.group))
            else:
                earlier = jax.tree.map(self._on_trials, earlier)
                reporter.skip(sum(_epochs(stage) for stage in self.stages))
            return self._evaluate(earlier)
        finally:
            self.checkpoints.close()

    # ---- stages ----

    def _train(self, reporter: Reporter, stop: StopRequest) -> dict[str, Params]:
        """Best parameters of every stage."""
        done = self.checkpoints.latest()
        self.log.rewind(self.number, done)
        reporter.skip(done)
        if done:
            reporter.say(f"group {self.number}: resuming after {done} epochs")
        earlier: dict[str, Params] = {}  # shapes only, until the checkpoint's are loaded
        before = 0  # epochs of the stages before
        for index, stage in enumerate(self.stages):
            until = before + _epochs(stage)
            programs = self.experiment.programs[stage.name]
            data = self._trial_data(stage, index)
            if done <= before:
                state = programs.init(data.key, earlier)
            else:
                state = jax.eval_shape(programs.init, data.key, earlier)
                if done <= until:
                    state, earlier = self._restore(done, state, earlier)
            if done < until:
                data = programs.prepare(earlier, data, self.feed, self.batch_size, len(self.corpus))
                state = self._train_stage(
                    stage, programs, state, data, earlier, before, max(done, before), reporter, stop
                )
            earlier = earlier | {stage.name: state.best_params}
            before = until
        return earlier

    def _restore(self, done: int, state, earlier) -> tuple[TrainState, dict[str, Params]]:
        """The checkpoint after `done` epochs in the shapes of `state` and `earlier`."""
        like = {"state": state, "earlier": earlier}
        tree = self.checkpoints.load(done, like, len(self.group))
        tree = jax.device_put(tree, mesh_lib.by_trial(self.mesh))
        return tree["state"], tree["earlier"]

    def _train_stage(
        self, stage, programs, state: TrainState, data, earlier, before, done, reporter, stop
    ) -> TrainState:
        """Epochs `done` to the end of the stage, counted from the first stage's first."""
        batch = stage.settings.batch_size
        validation = self._tables([fill_up(f.validation, self.batch_size) for f in self.folds])
        for number in range(done, before + _epochs(stage)):
            epoch = number - before
            tick = time.monotonic()
            orders = [
                epoch_order(fold.train, batch, seed=trial.seed, epoch=number)
                for trial, fold in zip(self.group, self.folds, strict=True)
            ]
            state, record = programs.train_epoch(
                state, data, self.feed, self._tables(orders), validation, epoch
            )
            record = {k: np.asarray(v)[: len(self.group)] for k, v in record.items()}
            seconds = time.monotonic() - tick
            self._log(stage, epoch, number + 1, record, seconds, reporter)
            self._checkpoint(number + 1, state, earlier, stop)
        return state

    def _checkpoint(self, epochs_done: int, state, earlier, stop: StopRequest) -> None:
        due = time.monotonic() - self.saved_at >= self.config.checkpoint.every_seconds
        if due or stop.requested:
            self.checkpoints.save(
                epochs_done, {"state": state, "earlier": earlier}, len(self.group)
            )
            self.saved_at = time.monotonic()
        if stop.requested:
            raise Interrupted(stop.signal)

    def _log(self, stage, epoch, epochs_done, record, seconds, reporter) -> None:
        for name, values in record.items():
            bad = np.flatnonzero(~np.isfinite(values))
            if len(bad):
                raise UserError(
                    f"training diverged: {name} is {values[bad[0]]} in epoch {epoch + 1} of stage "
                    f"{stage.name}, trial ({self.group[bad[0]]}). Try a lower "
                    f"--config.stages.{stage.name}.learning_rate."
                )
        rate = sum(len(fold.train) for fold in self.folds) / seconds
        shared = {
            "group": self.number,
            "stage": stage.name,
            "epoch": epoch + 1,
            "epochs_done": epochs_done,
            "seconds": round(seconds, 3),
            "utterances_per_second": round(rate, 1),
        }
        self.log.write(
            [
                shared
                | {"fold": trial.fold, "seed": trial.seed}
                | {name: float(values[i]) for name, values in record.items()}
                for i, trial in enumerate(self.group)
            ]
        )
        terms = [k for k in record if k not in _NOT_SHOWN]
        score = "UA" if self.corpus.spec.is_classification else "-MAE"
        note = "  ".join(f"{name} {record[name].mean():.4f}" for name in terms)
        note += f"  val {score} {record['validation_score'].mean():.4f}"
        note += f" (best {record['best_score'].mean():.4f})  {rate:.0f} utt/s"
        reporter.epoch(stage.name, epoch + 1, _epochs(stage), note, seconds)

    # ---- evaluation ----

    def _evaluate(self, earlier: dict[str, Params]) -> list[Result]:
        """The last stage's best parameters on the test rows, under every condition."""
        stage = self.stages[-1]
        patterns = np.stack([pattern for _, _, pattern in conditions(self.corpus.spec.names)])
        rows = self._tables([fill_up(fold.test, self.batch_size) for fold in self.folds])
        outputs = self.experiment.programs[stage.name].predict(
            earlier[stage.name], self._trial_data(stage, 0), self.feed, rows, patterns
        )
        results = []
        for i, (trial, fold) in enumerate(zip(self.group, self.folds, strict=True)):
            results += score_trial(
                self.corpus,
                trial,
                fold.test,
                outputs[i][:, : len(fold.test)],
                method=self.config.method,
            )
        return results

    # ---- arrays with a trial axis ----

    def _trial_data(self, stage: Stage, index: int) -> TrialData:
        """A trial's key depends on its fold, its seed and the stage, on nothing else."""
        keys = [
            jax.random.fold_in(jax.random.fold_in(jax.random.key(t.seed), t.fold), index)
            for t in self.group
        ]
        keys += [keys[-1]] * (self.count - len(keys))
        hyper = {
            name: self._on_trials([np.float32(value)] * len(self.group))
            for name, value in stage.hyper.items()
        }
        return TrialData(
            key=jax.device_put(jnp.stack(keys), mesh_lib.by_trial(self.mesh)),
            mean={name: mean for name, (mean, _) in self.statistics.items()},
            std={name: std for name, (_, std) in self.statistics.items()},
            clip=self._on_trials(
                [np.float32(self.config.data.clip_std or np.inf)] * len(self.group)
            ),
            hyper=hyper,
            frozen={},
            constants={},
        )

    def _on_trials(self, values) -> jax.Array:
        """One value per trial of the group -> [T, ...] on the mesh."""
        padded = pad_trials(np.stack([np.asarray(v) for v in values]), self.count)
        return jax.device_put(padded, mesh_lib.by_trial(self.mesh))

    def _tables(self, tables: list[np.ndarray]) -> np.ndarray:
        """[S, B] of each trial of the group -> [S, T, B]; trials that only pad have no rows."""
        empty = np.full((1, tables[0].shape[1]), -1, np.int32)
        return stack_tables(tables + [empty] * (self.count - len(tables)))


_NOT_SHOWN = {
    "validation_score",
    "best_score",
    "best_epoch",
    "gradient_norm",
    "parameter_norm",
}


def _epochs(stage: Stage) -> int:
    return stage.settings.constant_epochs + stage.settings.decay_epochs


def _describe(config, corpus: Corpus, folds, trials, groups) -> str:
    modalities = ", ".join(
        f"{m.name} {m.max_steps}×{m.dim}" if m.is_sequence else f"{m.name} {m.dim}"
        for m in corpus.spec.modalities
    )
    labels = ", ".join(corpus.spec.classes) or "real-valued"
    return (
        f"{config.method} on {corpus.name}: {int(corpus.labelled.sum())} labelled utterances, "
        f"{modalities}; {config.data.label}: {labels}\n"
        f"{len(trials)} trials ({len(folds)} folds by {config.data.splits}, "
        f"{config.trials.seeds} seed(s)) in {len(groups)} group(s) on {jax.device_count()} "
        f"{jax.devices()[0].platform} device(s)"
    )


def claim_workdir(workdir: Path, config, corpus: Corpus) -> None:
    """Make `workdir` this configuration's, or refuse if it is another's."""
    mine = {
        "config": config_lib.flat(config),
        "corpus": {
            "name": corpus.name,
            "fingerprint": corpus.fingerprint,
            "utterances": len(corpus),
            "modalities": {m.name: [m.dim, m.max_steps] for m in corpus.spec.modalities},
            "classes": list(corpus.spec.classes),
        },
    }
    path = workdir / "config.json"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"workdir {workdir} cannot be made: {error}") from None
    begun = any((workdir / name).exists() for name in ("metrics.jsonl", "results.csv"))
    if path.exists():
        try:
            theirs = json.loads(path.read_text(encoding="utf-8"))
            different = _differences(theirs, mine)
        except (ValueError, KeyError, AttributeError, TypeError):
            raise UserError(
                f"{path} is not a config.json of ours; choose another --workdir"
            ) from None
        if different and begun:
            raise UserError(
                f"workdir {workdir} belongs to another run ({'; '.join(different)}). Choose "
                "another --workdir, or delete this one."
            )
        if begun:
            return
    write_atomically(path, json.dumps(mine, indent=2) + "\n")


def _differences(theirs: dict, mine: dict) -> list[str]:
    found = []
    for section, ignored in (("config", config_lib.INCIDENTAL), ("corpus", ())):
        for key in sorted(theirs[section].keys() | mine[section].keys()):
            old, new = theirs[section].get(key), mine[section].get(key)
            if old != new and key not in ignored:
                found.append(f"{key} there {old!r}, here {new!r}")
    return found

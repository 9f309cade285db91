"""What all groups of trials share, and the arrays of one group.

An `Experiment` holds the corpus on the devices once, whatever the number of trials, and one set of
compiled programs for all points that can share it. `GroupArrays` lays per-trial values and tables
of rows out along the trial axis.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mmer_jax import mesh as mesh_lib
from mmer_jax.checkpoint import pad_trials
from mmer_jax.data.corpus import Corpus
from mmer_jax.data.feed import Feed
from mmer_jax.data.noise import Noise, NoiseDraw, corruption
from mmer_jax.data.normalize import Statistics, fold_statistics, label_statistics
from mmer_jax.data.protocols import SPLIT
from mmer_jax.data.splits import Fold
from mmer_jax.data.units import Grouping, Histories, Units, empty, make_grouping
from mmer_jax.methods import make_stages
from mmer_jax.methods.stage import Stage
from mmer_jax.programs import Programs, TrialData
from mmer_jax.sweep import Point
from mmer_jax.trials import Group, Trial, epoch_order, fill_up, stack_tables


class Experiment:
    """The corpus on the devices, the folds, and the programs of every point.

    Args:
      config: of the run; points differ from it in what a sweep may change.
      corpus: the data.
      folds: of the corpus.
      groups: all groups of trials, finished ones included: the mesh must not depend on what an
        earlier run has done.
      unlabelled: further utterances, for databases and nothing else.
    """

    def __init__(
        self,
        config,
        corpus: Corpus,
        folds: list[Fold],
        groups: Sequence[Group],
        unlabelled: Corpus | None = None,
    ):
        self.config, self.corpus, self.folds = config, corpus, folds
        self.unlabelled = unlabelled
        n_points = len({trial.point.number for group in groups for trial in group.trials})
        # A sweep looks for limits; the trial that meets one must not cost the others.
        self.drops_diverged = n_points > 1 or config.train.on_nonfinite == "drop_trial"
        points = {group.trials[0].point.program_key: group.trials[0].point for group in groups}
        self._stages = {key: make_stages(p.config, corpus.spec) for key, p in points.items()}
        units = {(s.unit, s.history) for stages in self._stages.values() for s in stages}
        self._groupings = {
            unit: make_grouping(corpus, unit[0], config.data.dialogues, unit[1])
            for unit in sorted(units)
        }
        train_rows = [fold.train for fold in folds]
        self.statistics: Statistics = fold_statistics(corpus, train_rows, config.data.normalize)
        self.label_statistics = label_statistics(corpus, train_rows)
        sizes = [s.settings.batch_size for stages in self._stages.values() for s in stages]
        self.mesh: Mesh = mesh_lib.make_mesh(
            max(group.width for group in groups),
            math.gcd(config.eval.batch_size, *sizes),
            config.mesh.data,
            config.mesh.devices,
        )
        self.feed = self._feed(corpus)
        self.unlabelled_feed = None if unlabelled is None else self._feed(unlabelled)
        self._programs: dict[str, dict[str, Programs]] = {}

    def _feed(self, corpus: Corpus) -> Feed:
        return Feed(
            corpus,
            self.mesh,
            placement=self.config.data.placement,
            memory_budget=self.config.data.memory_budget_gb * 2**30,
        )

    def noise(self, draw: NoiseDraw | None) -> Noise | None:
        """A draw's noise of every utterance of the corpus, [N]."""
        return None if draw is None else draw.of_corpus(self.corpus.ids, self.config.noise, SPLIT)

    def grouping(self, stage: Stage) -> Grouping | Histories:
        """What belongs together in the units of a stage."""
        return self._groupings[stage.unit, stage.history]

    def stages(self, point: Point) -> tuple[Stage, ...]:
        """The stages whose shapes `point` shares; its hyper-parameters are `point_stages`'."""
        return self._stages[point.program_key]

    def point_stages(self, point: Point) -> tuple[Stage, ...]:
        """The stages with the settings of `point` itself."""
        return make_stages(point.config, self.corpus.spec)

    def programs(self, point: Point, stage: Stage) -> Programs:
        """Compiled once for all points of the same `program_key`."""
        mine = self._programs.setdefault(point.program_key, {})
        if stage.name not in mine:
            mine[stage.name] = Programs(
                stage,
                self.corpus.spec,
                self.mesh,
                training=point.config.train.patterns,
                corruption=corruption(point.config),
                select=point.config.train.select,
            )
        return mine[stage.name]


class GroupArrays:
    """Values and tables of a group's trials along the trial axis, filled up to its width."""

    def __init__(self, experiment: Experiment, group: Group):
        self._experiment, self.trials = experiment, group.trials
        self._mesh = experiment.mesh
        self._count = mesh_lib.padded_count(group.width, self._mesh)
        self.folds = [experiment.folds[trial.fold] for trial in self.trials]

    def on_trials(self, values) -> jax.Array:
        """One value per trial of the group -> [T, ...] on the mesh."""
        padded = pad_trials(np.stack([np.asarray(v) for v in values]), self._count)
        return mesh_lib.put(padded, mesh_lib.by_trial(self._mesh))

    def training_tables(self, stage: Stage, epoch: int) -> Units:
        """[S, T, U, L] of an epoch, counted over all stages from 0, in its order."""
        return self._tables(
            [
                epoch_order(
                    self._training_units(stage, fold),
                    stage.settings.batch_size,
                    seed=trial.seed,
                    epoch=epoch,
                    shuffle_buffer=trial.point.config.data.shuffle_buffer,
                    pack=self._experiment.grouping(stage).pack,
                )
                for trial, fold in zip(self.trials, self.folds, strict=True)
            ]
        )

    def evaluation_tables(self, stage: Stage, rows: list[np.ndarray]) -> Units:
        """[S, T, U, L] in which each trial's rows count; their dialogues are read as a whole."""
        grouping = self._experiment.grouping(stage)
        everything = np.arange(len(self._experiment.corpus))
        parts = [grouping.pack(grouping.units(r, everything)) for r in rows]
        return self._tables([fill_up(part, self._batch_of(grouping)) for part in parts])

    def prepare_inputs(self, stage: Stage) -> tuple[Units, np.ndarray, list[tuple[Feed, Units]]]:
        """What `Programs.prepare` of a stage is asked with."""
        known = self.known() if stage.relate else []
        return self.prepare_tables(stage), self.trained_rows(), known

    def prepare_tables(self, stage: Stage) -> Units:
        """[S, T, U, L] in which every row of the corpus counts once.

        What is prepared for training has never seen validation or test: the training part's
        dialogues are read as in training, the other rows in whole dialogues. The two share no row
        of units, where they would see each other.
        """
        grouping = self._experiment.grouping(stage)
        everything = np.arange(len(self._experiment.corpus))
        tables = []
        for fold in self.folds:
            train = self._training_units(stage, fold)
            train = Units(train.rows, train.rows >= 0)
            others = np.setdiff1d(everything, train.rows[train.counted])
            parts = grouping.pack(train), grouping.pack(grouping.units(others, everything))
            both = Units(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
            tables.append(fill_up(both, self._batch_of(grouping)))
        return self._tables(tables)

    def trained_rows(self) -> np.ndarray:
        """[T, N] bool, the labelled utterances of each trial's training part."""
        found = np.zeros((self._count, len(self._experiment.corpus)), bool)
        for i, fold in enumerate(self.folds):
            found[i, fold.train] = True
        return found

    def _training_units(self, stage: Stage, fold: Fold) -> Units:
        return self._experiment.grouping(stage).units(fold.train, fold.context)

    def _batch_of(self, grouping: Grouping | Histories) -> int:
        """Units of an evaluation batch: about `eval.batch_size` rows, divided among devices."""
        share = self._mesh.shape["data"]
        return max(1, self._experiment.config.eval.batch_size // (grouping.length * share)) * share

    def _tables(self, tables: list[Units]) -> Units:
        """[S, U, L] of each trial of the group -> [S, T, U, L]; trials that only pad have none."""
        nothing = empty(0, *tables[0].rows.shape[1:])
        return stack_tables(tables + [nothing] * (self._count - len(tables)))

    def known(self) -> list[tuple[Feed, Units]]:
        """What databases are made of (`Programs.database`): unlabelled and training rows.

        Tables are as long as the longest of all folds, so that all groups share programs.
        """
        experiment, found = self._experiment, []
        if experiment.unlabelled_feed is not None:
            every = np.arange(len(experiment.unlabelled))
            found.append((experiment.unlabelled_feed, self._alone([every] * self._count)))
        longest = max(len(fold.train) for fold in experiment.folds)
        train = [fold.train for fold in self.folds]
        train += [train[-1]] * (self._count - len(train))
        return [*found, (experiment.feed, self._alone(train, longest))]

    def known_ids(self) -> list[list[str]]:
        """The ids of each trial's database, in the order of its rows."""
        experiment = self._experiment
        more = [] if experiment.unlabelled is None else list(map(str, experiment.unlabelled.ids))
        return [more + list(map(str, experiment.corpus.ids[fold.train])) for fold in self.folds]

    def _alone(self, rows: list[np.ndarray], longest: int = 0) -> Units:
        """[S, T, B, 1] of rows [n] of each trial, as if these were `longest`."""
        longest, batch = max(longest, *map(len, rows)), self._experiment.config.eval.batch_size
        tables = [np.pad(r, (0, longest - len(r)), constant_values=-1)[:, None] for r in rows]
        return self._tables([fill_up(Units(t.astype(np.int32), t >= 0), batch) for t in tables])

    def trial_data(self, index: int) -> TrialData:
        """What the programs of stage `index` read.

        A trial's key depends on its fold, its seed and the stage, on nothing else: points of a
        sweep start alike.
        """
        keys = [_key(trial, index) for trial in self.trials]
        keys += [keys[-1]] * (self._count - len(keys))
        hyper = [self._experiment.point_stages(t.point)[index].hyper for t in self.trials]
        configs = [trial.point.config for trial in self.trials]
        folds = [trial.fold for trial in self.trials]
        parts = self._experiment.statistics
        mean, std = ({k: self.on_trials(v[i][folds]) for k, v in parts.items()} for i in (0, 1))
        label_mean, label_std = self._experiment.label_statistics
        return TrialData(
            key=mesh_lib.put(jnp.stack(keys), mesh_lib.by_trial(self._mesh)),
            mean=mean,
            std=std,
            label_mean=self.on_trials(label_mean[folds]),
            label_std=self.on_trials(label_std[folds]),
            clip=self.on_trials([np.float32(c.data.clip_std or np.inf) for c in configs]),
            rate=self.on_trials([_rate_range(c.train.rate) for c in configs]),
            hyper={name: self.on_trials([np.float32(h[name]) for h in hyper]) for name in hyper[0]},
            frozen={},
            constants={},
        )


def _key(trial: Trial, stage: int) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(trial.seed), trial.fold), stage)


def _rate_range(rate) -> np.ndarray:
    """(low, high) of the missing rate in training."""
    low, high = (0.0, 1.0) if rate == "uniform" else (rate, rate)
    return np.array([low, high], np.float32)

"""A trained workdir as a function from features with holes to probabilities.

model = mmer_jax.load("workdirs/ifmmin")
found = model.predict({"text": sentences, "audio": [clip, None]})
found.labels, found.probabilities, found.used
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from mmer_jax.data.corpus import CorpusSpec, Modality, RawModality, Task
from mmer_jax.data.in_memory import check, from_arrays
from mmer_jax.data.missing import condition_name
from mmer_jax.ensemble import ensemble_outputs
from mmer_jax.errors import UserError
from mmer_jax.trained import Member, TrainedRun, load_trained


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What an ensemble says of N utterances.

    Attributes:
      outputs: [N, C] probabilities, the mean over members, the tasks' side by side; [N, 1] values
        for a real-valued label. NaN where an utterance has no usable modality.
      used: [N, M] bool, the modalities that were there and finite.
      modalities: [M] names.
      tasks: what is predicted; `of` leads from several to one.
      members: [E, N, C] or [E, N, 1], each member's own outputs, where they were asked for.
    """

    outputs: np.ndarray
    used: np.ndarray
    modalities: tuple[str, ...]
    tasks: tuple[Task, ...]
    members: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.outputs)

    def of(self, name: str) -> "Predictions":
        """What is predicted of one task."""
        names = [task.name for task in self.tasks]
        if name not in names:
            raise UserError(f"the model has no task '{name}'; it has: {', '.join(names)}")
        i, spec = names.index(name), CorpusSpec((), self.tasks)
        members = None if self.members is None else spec.split(self.members)[i]
        return dataclasses.replace(
            self, outputs=spec.split(self.outputs)[i], tasks=(self.tasks[i],), members=members
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """[C] names of the only task; empty for a real-valued label."""
        return _only(self.tasks).classes

    @property
    def probabilities(self) -> np.ndarray:
        """[N, C], in the order of `classes`."""
        if not self.classes:
            raise UserError("the model predicts a real-valued label: ask for .values")
        return self.outputs

    @property
    def values(self) -> np.ndarray:
        """[N], in the unit of the label."""
        if self.classes:
            raise UserError(
                f"the model predicts classes ({', '.join(self.classes)}): ask for .probabilities "
                "or .labels"
            )
        return self.outputs[:, 0]

    @property
    def labels(self) -> list[str]:
        """[N] names of the most probable classes; "" where no modality was usable."""
        best = np.nan_to_num(self.probabilities, nan=-1.0).argmax(axis=1)
        return [
            self.classes[i] if any_used else ""
            for i, any_used in zip(best, self.used.any(axis=1), strict=True)
        ]

    @property
    def used_names(self) -> list[str]:
        """[N] names of the modalities that were used, joined by '+'."""
        return [condition_name(row, self.modalities) for row in self.used]


class Predictor:
    """The members of an ensemble on the default device.

    Args:
      trained: as of `load_trained`.
    """

    def __init__(self, trained: TrainedRun):
        self.trained = trained
        self._weights = jax.device_put(trained.weights)
        self._program = jax.jit(functools.partial(ensemble_outputs, trained.stage, trained.spec))

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Names and shapes that features must have."""
        return self.trained.spec.modalities

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Label columns and their classes, in the order of probabilities."""
        return self.trained.spec.tasks

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the only task, in the order of probabilities; empty for a real-valued label."""
        return _only(self.tasks).classes

    @property
    def members(self) -> tuple[Member, ...]:
        """(fold, seed) of each model of the ensemble."""
        return self.trained.members

    def predict(
        self, features: Mapping[str, object], *, batch_size: int = 256, members: bool = False
    ) -> Predictions:
        """Predict N utterances, of which any may lack any modality.

        Args:
          features: modality -> array [N, D], or for a sequence a list of N arrays [T, D]; None for
            an utterance that lacks it, or leave the modality out. Features that are not finite
            count as absent. Units are those of the feature files; sequences may be longer than any
            in training.
          batch_size: utterances at a time.
          members: also return what each member says.

        Raises:
          UserError: an unknown modality, another shape than in training, or different N.
        """
        raw = from_arrays(features, self.trained.spec)
        return self.predict_raw(raw, batch_size=batch_size, members=members)

    def predict_raw(
        self, raw: Mapping[str, RawModality], *, batch_size: int = 256, members: bool = False
    ) -> Predictions:
        """As `predict`, of modalities as a feature directory stores them; absent ones are NaN."""
        spec = self.trained.spec
        check(raw, spec)
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; it must be at least 1")
        count = len(next(iter(raw.values())))
        used = np.zeros((count, len(spec.modalities)), bool)
        outputs = np.zeros((count, spec.n_outputs), np.float32)
        own = np.zeros((len(self.members), *outputs.shape), np.float32) if members else None
        if count:
            for i, name in enumerate(spec.names):
                if name in raw:
                    used[:, i] = raw[name].finite_rows()
        for start in range(0, count, batch_size):
            rows = np.arange(start, min(start + batch_size, count))
            mean, each = self._program(self._weights, *self._batch(raw, rows, used, batch_size))
            outputs[rows] = np.asarray(mean)[: len(rows)]
            if own is not None:
                own[:, rows] = np.asarray(each)[:, : len(rows)]
        return Predictions(outputs, used, spec.names, spec.tasks, own)

    def _batch(self, raw, rows: np.ndarray, used: np.ndarray, batch_size: int):
        """(features, lengths, present) of some rows, filled up to a size that recurs."""
        size = min(batch_size, 1 << (len(rows) - 1).bit_length())
        present = np.zeros((size, used.shape[1]), bool)
        present[: len(rows)] = used[rows]
        lengths = {
            m.name: self._lengths(m, raw.get(m.name), rows, present[:, i])
            for i, m in enumerate(self.modalities)
            if m.is_sequence
        }
        scale = self._scale(lengths, rows)
        features = {}
        for i, m in enumerate(self.modalities):
            shape = (size, steps_at(m, scale), m.dim) if m.is_sequence else (size, m.dim)
            features[m.name] = np.zeros(shape, np.float32)
            mine = present[: len(rows), i]
            if mine.any():
                found = raw[m.name].read(rows[mine])
                found = found[:, : shape[1]]  # of a vector all of it
                place = np.flatnonzero(mine)
                features[m.name][place, : found.shape[1]] = found
        return features, lengths, present

    def _lengths(self, m: Modality, raw: RawModality | None, rows, present) -> np.ndarray:
        """[size] steps of a sequence, 1 where it is absent."""
        lengths = np.ones(len(present), np.int32)
        if raw is not None and raw.lengths is not None:
            lengths[: len(rows)] = raw.lengths[rows]
        return np.where(present, lengths, 1)

    def _scale(self, lengths: Mapping[str, np.ndarray], rows: np.ndarray) -> float:
        """The number of steps to fill up to, as a multiple of training's.

        One power of two for all modalities, so that few programs are ever compiled.
        """
        if self.trained.pad_masking:
            scale = 0.25
            while any(
                lengths[m.name].max() > steps_at(m, scale) for m in self.modalities if m.is_sequence
            ):
                scale *= 2
            return scale
        for m in self.modalities:
            if m.is_sequence and lengths[m.name].max() > m.max_steps:
                longest = int(lengths[m.name].argmax())
                raise UserError(
                    f"modality '{m.name}', utterance {rows[longest]}: {lengths[m.name][longest]} "
                    f"steps. This model was trained with quirks.pad_masking=False, where padding "
                    f"counts: sequences are filled up to {m.max_steps} steps, as in training, and "
                    "may not be longer. Shorten it, or give None"
                )
        return 1.0


def _only(tasks: Sequence[Task]) -> Task:
    if len(tasks) > 1:
        names = ", ".join(task.name for task in tasks)
        raise UserError(f"the model has several tasks ({names}): ask for .of('{tasks[0].name}')")
    return tasks[0]


def steps_at(m: Modality, scale: float) -> int:
    """The length that sequences of a modality are filled up to."""
    return math.ceil(m.max_steps * scale)


def load(
    workdir: str | Path,
    *,
    folds: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
) -> Predictor:
    """The ensemble over the folds and seeds of a finished run.

    Args:
      workdir: of `python -m mmer_jax.main`.
      folds, seeds: the members to use; all by default.

    Raises:
      UserError: `workdir` holds no finished run, or not these folds or seeds.
    """
    return Predictor(load_trained(Path(workdir).expanduser(), folds=folds, seeds=seeds))

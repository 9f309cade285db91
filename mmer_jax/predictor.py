"""A trained workdir as a function from features with holes to probabilities.

model = mmer_jax.load("workdirs/ifmmin")
found = model.predict({"text": sentences, "audio": [clip, None]})
found.labels, found.probabilities, found.used
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from mmer_jax import mirror
from mmer_jax.data.corpus import CorpusSpec, Modality, RawModality, Task
from mmer_jax.data.in_memory import check, from_arrays
from mmer_jax.data.missing import condition_name
from mmer_jax.data.speakers import number_speakers
from mmer_jax.data.units import Grouping, Histories, alone, group_turns
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

    @property
    def reads_dialogues(self) -> bool:
        """Whether a prediction depends on other utterances of the dialogue."""
        return self.trained.stage.unit != "utterance"

    @property
    def reads_speakers(self) -> bool:
        """Whether it depends on who speaks."""
        return self.trained.stage.unit == "history"

    def predict(
        self,
        features: Mapping[str, object],
        *,
        dialogues: Sequence[str] | None = None,
        turns: Sequence[float] | None = None,
        speakers: Sequence[str] | None = None,
        batch_size: int = 256,
        members: bool = False,
    ) -> Predictions:
        """Predict N utterances, of which any may lack any modality.

        Args:
          features: modality -> array [N, D], or for a sequence a list of N arrays [T, D]; None for
            an utterance that lacks it, or leave the modality out. Features that are not finite
            count as absent. Units are those of the feature files; sequences may be longer than any
            in training.
          dialogues: [N] names, for a method that reads dialogues; None: every utterance is a
            dialogue of its own.
          turns: [N] numbers that order the utterances of each dialogue; None: as they are given.
          speakers: [N] names, for a method that reads the turns before and who spoke them.
          batch_size: utterances at a time; a dialogue is read as a whole, however long.
          members: also return what each member says.

        Raises:
          UserError: an unknown modality, another shape than in training, different N, turns that
            are repeated, or dialogues without speakers.
        """
        raw = from_arrays(features, self.trained.spec)
        grouping = None
        if dialogues is not None:
            count = len(next(iter(raw.values())))
            turns = range(count) if turns is None else turns
            given = {"dialogues": dialogues, "turns": turns, "speakers": speakers}
            for name, values in given.items():
                if values is not None and len(values) != count:
                    raise UserError(f"{name} has {len(values)} entries for {count} utterances")
            grouping = group_turns(dialogues, turns, np.arange(count).astype(str))
        return self.predict_raw(raw, grouping, speakers, batch_size=batch_size, members=members)

    def predict_raw(
        self,
        raw: Mapping[str, RawModality],
        grouping: Grouping | None = None,
        speakers: Sequence[str] | None = None,
        *,
        ids: np.ndarray | None = None,
        batch_size: int = 256,
        members: bool = False,
    ) -> Predictions:
        """As `predict`, of modalities as a feature directory stores them; absent ones are NaN.

        `grouping`: the dialogues, for a method that reads them; None: of one utterance each.
        `speakers`: names [N], for a method that reads who speaks in them.
        `ids`: [N], for messages; None: numbers from 0.
        """
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
        if grouping is None or not self.reads_dialogues:
            grouping = alone(count)
        ids = np.arange(count).astype(str) if ids is None else ids
        numbers = self._speakers(grouping, speakers, ids)
        for rows in self._units(grouping, batch_size):
            flat = rows.reshape(-1)
            batch = self._batch(raw, flat, used)
            who = None if numbers is None else numbers[flat]
            mean, each = self._program(self._weights, *batch, rows >= 0, who)
            # Of a history the last turn is what is predicted.
            there = flat >= 0
            if self.trained.stage.unit == "history":
                there &= np.arange(len(flat)) % rows.shape[1] == rows.shape[1] - 1
            outputs[flat[there]] = np.asarray(mean)[there]
            if own is not None:
                own[:, flat[there]] = np.asarray(each)[:, there]
        return Predictions(outputs, used, spec.names, spec.tasks, own)

    def _speakers(
        self, grouping: Grouping, speakers: Sequence[str] | None, ids: np.ndarray
    ) -> np.ndarray | None:
        """Their numbers [N] within each dialogue."""
        if not self.reads_speakers:
            return None
        if speakers is None:
            if grouping.length > 1:
                raise UserError("this model reads who speaks in a dialogue: give speakers as well")
            return np.zeros(len(grouping.table), np.int32)
        numbers = number_speakers(grouping, speakers, ids)
        known = self.trained.spec.n_speakers
        if len(numbers) and numbers.max() >= known:
            raise UserError(
                f"the dialogue of utterance {ids[numbers.argmax()]} has {numbers.max() + 1} "
                f"speakers; this model was trained on at most {known}. Leave dialogues out where "
                "utterances are to be read alone"
            )
        return numbers

    def _units(self, grouping: Grouping, batch_size: int) -> Iterator[np.ndarray]:
        """Rows [U, L] of each batch, -1 where there is none; of few shapes, so that they recur."""
        table, width = grouping.table, _power_of_two(grouping.length)
        if self.trained.stage.unit == "history":
            table = Histories.of(grouping, self.trained.stage.history).table
            width = table.shape[1]
        at_once = max(1, batch_size // width)
        for start in range(0, len(table), at_once):
            part = table[start : start + at_once]
            rows = np.full((min(at_once, _power_of_two(len(part))), width), -1, np.int32)
            rows[: len(part), : table.shape[1]] = part
            yield rows

    def _batch(self, raw, rows: np.ndarray, used: np.ndarray):
        """(features, lengths, present) of rows [B]; of row -1 nothing is present."""
        present = used[rows] & (rows >= 0)[:, None]
        lengths = {
            m.name: self._lengths(raw.get(m.name), rows, present[:, i])
            for i, m in enumerate(self.modalities)
            if m.is_sequence
        }
        scale = self._scale(lengths, rows)
        features = {}
        for i, m in enumerate(self.modalities):
            size = len(rows)
            shape = (size, steps_at(m, scale), m.dim) if m.is_sequence else (size, m.dim)
            features[m.name] = np.zeros(shape, np.float32)
            mine = present[:, i]
            if mine.any():
                found = raw[m.name].read(rows[mine])
                found = found[:, : shape[1]]  # of a vector all of it
                features[m.name][np.flatnonzero(mine), : found.shape[1]] = found
        return features, lengths, present

    def _lengths(self, raw: RawModality | None, rows: np.ndarray, present) -> np.ndarray:
        """[B] steps of a sequence, 1 where it is absent."""
        if raw is None or raw.lengths is None:
            return np.ones(len(rows), np.int32)
        return np.where(present, raw.lengths[rows], 1).astype(np.int32)

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


def _power_of_two(count: int) -> int:
    """The next one."""
    return 1 << (count - 1).bit_length()


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
    return Predictor(load_trained(mirror.folder(str(workdir)), folds=folds, seeds=seeds))

"""hardness.csv: how hard an utterance is under each pattern, its neighbours, and the error made.

    fold,seed,split,available,utt_id,label,prediction,error,[hardness,...],neighbour1,label1,...

The error of a class is 0 or 1, of a real-valued label the distance from it; of several tasks label,
prediction and error are the first one's. Neighbours are training utterances or unlabelled ones,
nearest first. Cells are empty where there is nothing to tell.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmer_jax.data.missing import condition_name
from mmer_jax.data.units import places
from mmer_jax.experiment import Experiment, GroupArrays
from mmer_jax.methods.stage import Params, Stage
from mmer_jax.programs import Programs, TrialData
from mmer_jax.records import write_atomically

FILE = "hardness.csv"
FIRST = ("fold", "seed", "split", "available", "utt_id", "label", "prediction", "error")
SPLITS = {"none": (), "test": ("test",), "all": ("train", "validation", "test")}


class StudyTable:
    """Collects the lines of a point's trials.

    Args:
      experiment: for data; `eval.study` says which splits.
      stage: the last one.
    """

    def __init__(self, experiment: Experiment, stage: Stage):
        self._experiment, self._stage = experiment, stage
        corpus, more = experiment.corpus, experiment.unlabelled
        self.splits = SPLITS[experiment.config.eval.study] if stage.study else ()
        # By row as of `Stage.study`: -1 is none, below it are the unlabelled utterances.
        unlabelled = np.array([] if more is None else more.ids, str)[::-1]
        self._names = np.concatenate([corpus.ids.astype(str), unlabelled, [""]])
        labels = np.array(_label_texts(experiment), str)
        self._labels = np.concatenate([labels, np.full(len(unlabelled) + 1, "")])
        self._text = io.StringIO()
        self._writer = csv.writer(self._text, lineterminator="\n")

    def add(
        self, programs: Programs, arrays: GroupArrays, params: Params, prepared: TrialData
    ) -> None:
        """The trials of `arrays`, for which `prepared` is what `Programs.prepare` returned."""
        parts = [[getattr(fold, split) for split in self.splits] for fold in arrays.folds]
        rows = [np.concatenate(part) for part in parts]
        units, feed = arrays.evaluation_tables(self._stage, rows), self._experiment.feed
        outputs = programs.predict(params, prepared, feed, units, programs.patterns)
        found = programs.study(prepared, feed, units)
        neighbours = found.pop("neighbours")
        if not self._text.tell():
            numbers = range(1, neighbours.shape[-1] + 1)
            pairs = (name for n in numbers for name in (f"neighbour{n}", f"label{n}"))
            self._writer.writerow([*FIRST, *found, *pairs])
        names = self._experiment.corpus.spec.names
        for i, (trial, mine) in enumerate(zip(arrays.trials, rows, strict=True)):
            at = places(units, i, mine)
            splits = np.repeat(self.splits, [len(part) for part in parts[i]])
            for k, pattern in enumerate(programs.patterns):
                columns = [
                    splits,
                    [condition_name(pattern, names)] * len(mine),
                    self._names[mine],
                    self._labels[mine],
                    *self._outcome(outputs[i, k, at], mine),
                    *(_texts(values[i, k, at]) for values in found.values()),
                    *(x for n in neighbours[i, k, at].T for x in (self._names[n], self._labels[n])),
                ]
                lines = zip(*columns, strict=True)
                self._writer.writerows([trial.fold, trial.seed, *line] for line in lines)

    def save(self, workdir: Path) -> None:
        """Write hardness.csv if there is anything in it; else remove an earlier one."""
        (workdir / FILE).unlink(missing_ok=True)
        if self._text.tell():
            write_atomically(workdir / FILE, self._text.getvalue())

    def _outcome(self, outputs: np.ndarray, rows: np.ndarray) -> list[Sequence[str]]:
        """(prediction, error) of the first task from outputs [n, C] of all."""
        corpus = self._experiment.corpus
        labels, mine = corpus.labels[rows, 0], corpus.spec.split(outputs)[0]
        if not corpus.spec.is_classification:
            return [_texts(mine[:, 0]), _texts(np.abs(mine[:, 0] - labels))]
        guess = mine.argmax(axis=-1)
        error = np.where(labels >= 0, guess != labels, np.nan)
        return [np.array(corpus.spec.tasks[0].classes)[guess].tolist(), _texts(error)]


def _label_texts(experiment: Experiment) -> list[str]:
    """The first task's label of every row; "" where there is none."""
    labels, task = experiment.corpus.labels[:, 0], experiment.corpus.spec.tasks[0]
    if not task.classes:
        return _texts(labels)
    return [task.classes[label] if label >= 0 else "" for label in labels]


def _texts(values: np.ndarray) -> list[str]:
    """With six digits; "" where they are not finite."""
    return [f"{x:.6g}" if np.isfinite(x) else "" for x in values.tolist()]

"""The lines of results.csv by condition, metric and trial, and the two averages over patterns."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from mmer_jax.metrics import classification_scores
from mmer_jax.results import Result

POOLED = "missing, pooled"
COLUMN_MEAN = "missing, mean"

Trial = tuple[int, int]  # fold, seed
Condition = tuple[str, str]  # protocol, condition
Counts = dict[tuple[str, str], int]  # (truth, predicted) -> utterances


@dataclasses.dataclass(frozen=True)
class Scores:
    """Test scores of one method.

    Attributes:
      values: condition -> metric -> trial -> score, in the order of results.csv; then, under the
        protocol "average", the two averages over the missing patterns.
      counts: condition -> trial -> confusion counts, the pooled missing patterns included.
      effective: condition -> trial -> share of modality slots that the masks removed.
    """

    values: dict[Condition, dict[str, dict[Trial, float]]]
    counts: dict[Condition, dict[Trial, Counts]]
    effective: dict[Condition, dict[Trial, float]]

    def conditions(self, *protocols: str) -> list[Condition]:
        return [key for key in self.values if key[0] in protocols]

    def metrics(self, *protocols: str) -> list[str]:
        """Names of the scores under these protocols, each once."""
        names = (name for key in self.conditions(*protocols) for name in self.values[key])
        return list(dict.fromkeys(names))

    def get(self, condition: Condition, metric: str) -> dict[Trial, float]:
        return self.values.get(condition, {}).get(metric, {})

    def trials(self) -> list[Trial]:
        found = {t for by_metric in self.values.values() for v in by_metric.values() for t in v}
        return sorted(found)


def collect(results: Iterable[Result]) -> Scores:
    """Sort the lines of one method's results.csv; adds the averages over missing patterns."""
    values: dict = defaultdict(lambda: defaultdict(dict))
    counts: dict = defaultdict(lambda: defaultdict(dict))
    effective: dict = defaultdict(dict)
    for r in results:
        condition, trial = (r.protocol, r.condition), (r.fold, r.seed)
        if r.metric.startswith("confusion:"):
            truth, predicted = r.metric.removeprefix("confusion:").split(">", 1)
            counts[condition][trial][truth, predicted] = int(r.value)
        elif r.metric == "effective_rate":
            effective[condition][trial] = float(r.value)
        else:
            values[condition][r.metric][trial] = float(r.value)
    _add_pooled(values, counts)
    _add_column_mean(values)
    return Scores(
        values={key: dict(by_metric) for key, by_metric in values.items()},
        counts={key: dict(by_trial) for key, by_trial in counts.items()},
        effective=dict(effective),
    )


def _add_pooled(values: dict, counts: dict) -> None:
    """Scores of the confusion counts summed over the missing patterns, per trial."""
    pooled: dict[Trial, Counts] = defaultdict(lambda: defaultdict(int))
    for (protocol, _), by_trial in counts.items():
        if protocol == "pattern":
            for trial, cells in by_trial.items():
                for cell, n in cells.items():
                    pooled[trial][cell] += n
    if not pooled:
        return
    counts["average", POOLED] = {trial: dict(cells) for trial, cells in pooled.items()}
    for trial, cells in pooled.items():
        for metric, value in classification_scores(matrix(cells)).items():
            values["average", POOLED][metric][trial] = value


def _add_column_mean(values: dict) -> None:
    """Plain mean of the missing patterns' scores, per trial."""
    columns: dict[str, dict[Trial, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (protocol, _), by_metric in values.items():
        if protocol == "pattern":
            for metric, by_trial in by_metric.items():
                for trial, value in by_trial.items():
                    columns[metric][trial].append(value)
    for metric, by_trial in columns.items():
        for trial, scores in by_trial.items():
            values["average", COLUMN_MEAN][metric][trial] = float(np.mean(scores))


def matrix(counts: Counts, classes: Sequence[str] | None = None) -> np.ndarray:
    """[C, C] counts, rows are the truth; `classes` gives the order, else that of `counts`."""
    if classes is None:
        classes = list(dict.fromkeys(truth for truth, _ in counts))
    return np.array([[counts.get((t, p), 0) for p in classes] for t in classes])


def total(by_trial: Iterable[Counts], classes: Sequence[str]) -> np.ndarray:
    """[C, C] counts summed over trials."""
    zero = np.zeros((len(classes), len(classes)), int)
    return sum((matrix(counts, classes) for counts in by_trial), start=zero)


def recalls(by_trial: Iterable[Counts], classes: Sequence[str]) -> list[list[float]]:
    """Per class the recall in each trial where the class occurs."""
    found: list[list[float]] = [[] for _ in classes]
    for counts in by_trial:
        confusion = matrix(counts, classes)
        for i, row in enumerate(confusion):
            if row.sum():
                found[i].append(float(row[i] / row.sum()))
    return found

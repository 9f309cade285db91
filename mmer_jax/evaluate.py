"""From a trained group to rows of results.csv: every test utterance once per condition."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmer_jax import metrics
from mmer_jax.data.corpus import Corpus
from mmer_jax.data.missing import condition_name, full_pattern, missing_patterns
from mmer_jax.records import write_atomically
from mmer_jax.trials import Trial


@dataclasses.dataclass(frozen=True)
class Result:
    """A line of results.csv; `value` is text so that reading and writing change nothing."""

    method: str
    dataset: str
    fold: int
    seed: int
    split: str
    protocol: str
    condition: str
    metric: str
    value: str
    n: int


FIELDS = [field.name for field in dataclasses.fields(Result)]


def conditions(names: Sequence[str]) -> list[tuple[str, str, np.ndarray]]:
    """(protocol, condition, pattern [M]): full, then every missing pattern."""
    full, missing = full_pattern(len(names)), missing_patterns(len(names))
    return [("full", condition_name(full[0], names), full[0])] + [
        ("pattern", condition_name(pattern, names), pattern) for pattern in missing
    ]


def score_trial(
    corpus: Corpus,
    trial: Trial,
    rows: np.ndarray,
    outputs: np.ndarray,
    *,
    method: str,
    split: str = "test",
) -> list[Result]:
    """Results of one trial.

    Args:
      corpus: for labels and names.
      rows: [n] rows that were scored.
      outputs: [K, n, C] logits (or [K, n, 1] values) under `conditions`, in that order.
    """
    labels = corpus.labels[rows]
    results = []
    for (protocol, condition, _), output in zip(
        conditions(corpus.spec.names), outputs, strict=True
    ):
        for metric, value in _scores(corpus, labels, output).items():
            results.append(
                Result(
                    method=method,
                    dataset=corpus.name,
                    fold=trial.fold,
                    seed=trial.seed,
                    split=split,
                    protocol=protocol,
                    condition=condition,
                    metric=metric,
                    value=value,
                    n=len(rows),
                )
            )
    return results


def _scores(corpus: Corpus, labels: np.ndarray, output: np.ndarray) -> dict[str, str]:
    if not corpus.spec.is_classification:
        values = metrics.regression_scores(labels, output[:, 0])
        return {name: f"{value:.6f}" for name, value in values.items()}
    classes = corpus.spec.classes
    confusion = metrics.confusion_counts(labels, output.argmax(axis=-1), len(classes))
    scores = {k: f"{v:.6f}" for k, v in metrics.classification_scores(confusion).items()}
    for i, truth in enumerate(classes):
        for j, predicted in enumerate(classes):
            scores[f"confusion:{truth}>{predicted}"] = str(int(confusion[i, j]))
    return scores


def write_results(path: Path, results: Sequence[Result]) -> None:
    """Write results.csv as a whole."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    writer.writerows(dataclasses.astuple(result) for result in results)
    write_atomically(path, text.getvalue())


def read_results(path: Path) -> list[Result]:
    """The lines of results.csv; none if there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Result(
                **{**row, "fold": int(row["fold"]), "seed": int(row["seed"]), "n": int(row["n"])}
            )
            for row in csv.DictReader(file)
        ]

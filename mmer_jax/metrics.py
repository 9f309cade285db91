"""Scores: accuracy (WA), macro recall (UA), F1; or MAE, correlation and binary accuracy.

Classification scores are functions of confusion counts, so that they add up over batches, patterns
and folds. `score` is the one number an epoch is chosen by; higher is better. Several tasks have
their own scores, and `JOINT`, the harmonic mean of their weighted F1.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from mmer_jax.data.corpus import CorpusSpec

JOINT = "joint_wf1"

Counts = tuple[Float[Array, "..."], ...]  # of each task

# ---- on the device: what selects an epoch ----


def zero_counts(spec: CorpusSpec) -> Counts:
    """Of `score_counts`: for each task a confusion matrix, or (sum of absolute errors, count)."""
    return tuple(
        jnp.zeros((task.n_outputs, task.n_outputs) if task.classes else (2,)) for task in spec.tasks
    )


def score_counts(
    spec: CorpusSpec,
    outputs: Float[Array, "K B C"],
    labels: Num[Array, "B tasks"],
    weights: Float[Array, " B"],
) -> Counts:
    """Counts that add up over batches and give `score`, pooled over the K patterns.

    NaN where an output is not finite, and so is the score.
    """
    return tuple(
        _task_counts(output, labels[:, i], weights) for i, output in enumerate(spec.split(outputs))
    )


def _task_counts(
    outputs: Float[Array, "K B C"], labels: Num[Array, " B"], weights: Float[Array, " B"]
) -> Float[Array, "..."]:
    if jnp.issubdtype(labels.dtype, jnp.integer):
        n = outputs.shape[-1]
        truth = jax.nn.one_hot(labels, n) * weights[:, None]
        predicted = jax.nn.one_hot(jnp.argmax(outputs, axis=-1), n).sum(axis=0)
        # A diverged network has no score; its argmax would look like a constant answer.
        finite = jnp.where(jnp.isfinite(outputs).all(axis=(0, 2)) | (weights == 0), 1.0, jnp.nan)
        return jnp.einsum("bi,bj->ij", truth, predicted * finite[:, None])
    error = jnp.abs(outputs[..., 0] - jnp.nan_to_num(labels)[None]) * weights[None]
    return jnp.stack([error.sum(), weights.sum() * float(len(outputs))])


def score(counts: Counts, *, spec: CorpusSpec, select: str = "") -> Float[Array, ""]:
    """UA over the classes that occur, or minus the mean absolute error; `JOINT` of several.

    `select`: of several tasks the one whose UA is asked for instead.
    """
    if select:
        counts = (counts[[task.name for task in spec.tasks].index(select)],)
    if len(counts) > 1:
        f1 = jnp.stack([_weighted_f1(confusion) for confusion in counts])
        # 0 where one is; NaN stays.
        return len(counts) / jnp.sum(1 / jnp.maximum(f1, 1e-12))
    (mine,) = counts
    if not spec.is_classification:
        return -mine[0] / jnp.maximum(mine[1], 1.0)
    support = mine.sum(axis=1)
    recall = jnp.diag(mine) / jnp.maximum(support, 1.0)
    return recall.sum() / jnp.maximum((support > 0).sum(), 1).astype(recall.dtype)


def task_scores(counts: Counts, *, spec: CorpusSpec) -> dict[str, Float[Array, ""]]:
    """The UA of each of several tasks; nothing of a single one."""
    if len(counts) == 1:
        return {}
    return {task.name: score(counts, spec=spec, select=task.name) for task in spec.tasks}


def _weighted_f1(confusion: Float[Array, "C C"]) -> Float[Array, ""]:
    support = confusion.sum(axis=1)
    f1 = 2 * jnp.diag(confusion) / jnp.maximum(support + confusion.sum(axis=0), 1.0)
    return jnp.sum(f1 * support) / jnp.maximum(support.sum(), 1.0)


# ---- on the host: what is reported ----


def confusion_counts(
    labels: Num[np.ndarray, " n"], predicted: Num[np.ndarray, " n"], n_classes: int
) -> np.ndarray:
    """[C, C] counts, rows are the truth."""
    return np.bincount(labels * n_classes + predicted, minlength=n_classes**2).reshape(
        n_classes, n_classes
    )


def classification_scores(confusion: np.ndarray) -> dict[str, float]:
    """WA, UA, macro-F1 and weighted-F1 of a confusion matrix.

    UA averages the recall over the classes that occur in the truth; macro-F1 averages over the
    classes that occur in truth or prediction (as scikit-learn does).
    """
    confusion = confusion.astype(np.float64)
    hits, support, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    f1 = 2 * hits / np.maximum(support + predicted, 1)
    occurs = support > 0
    return {
        "WA": float(hits.sum() / support.sum()),
        "UA": float((hits[occurs] / support[occurs]).mean()),
        "macro_F1": float(f1[occurs | (predicted > 0)].mean()),
        "weighted_F1": float((f1 * support).sum() / support.sum()),
    }


def score_name(spec: CorpusSpec, select: str = "") -> str:
    """What `score` is."""
    if len(spec.tasks) > 1:
        return f"{select}/UA" if select else JOINT
    return "UA" if spec.is_classification else "-MAE"


def joint_score(weighted_f1: Sequence[float]) -> float:
    """The harmonic mean of the tasks' weighted F1; 0 where one is."""
    if min(weighted_f1) <= 0:
        return 0.0
    return len(weighted_f1) / sum(1 / value for value in weighted_f1)


def regression_scores(labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """MAE, Pearson correlation, and accuracy and weighted F1 of the sign.

    The binary scores leave out labels that are exactly zero (neutral), as is usual for CMU-MOSEI;
    labels of one sign have none.
    Correlation with a constant is 0.
    """
    labels, predictions = labels.astype(np.float64), predictions.astype(np.float64)
    x, y = labels - labels.mean(), predictions - predictions.mean()
    scale = np.sqrt((x**2).sum() * (y**2).sum())
    scores = {
        "MAE": float(np.abs(labels - predictions).mean()),
        "pearson": float((x * y).sum() / scale) if scale > 1e-12 else 0.0,
    }
    signed = labels != 0
    if (labels > 0).any() and (labels < 0).any():
        confusion = confusion_counts(
            (labels[signed] > 0).astype(int), (predictions[signed] > 0).astype(int), 2
        )
        binary = classification_scores(confusion)
        scores |= {"binary_accuracy": binary["WA"], "binary_F1": binary["weighted_F1"]}
    return scores

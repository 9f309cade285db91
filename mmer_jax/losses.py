"""Loss terms: pure functions of arrays and masks.

Terms of an utterance come back elementwise and the caller reduces them with `weighted_mean`; terms
of a batch (CMD) take the weights themselves. Denominators are safe and gradients finite everywhere.
"""

import itertools

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Num

from mmer_jax.data.corpus import CorpusSpec


def weighted_mean(values: Float[Array, "..."], weights: Num[Array, "..."]) -> Float[Array, ""]:
    """Mean of `values` under `weights` of the same shape; 0 where all weights are 0."""
    weights = weights.astype(values.dtype)
    return jnp.sum(values * weights) / jnp.maximum(jnp.sum(weights), 1e-9)


def mean_over_patterns(
    values: Float[Array, "K ..."], weights: Num[Array, "K ..."]
) -> Float[Array, ""]:
    """Mean over K patterns, which count alike, of each pattern's `weighted_mean`."""
    return jnp.mean(jax.vmap(weighted_mean)(values, weights))


def focal_loss(
    *, logits: Float[Array, "... C"], labels: Int[Array, "..."], focus: float
) -> Float[Array, "..."]:
    """(1 - p)^focus · cross entropy, p the probability of the label (Lin et al. 2017, eq. 4).

    What is known well counts little; a focus of 0 is the cross entropy. Labels of -1 as there.
    """
    entropy = cross_entropy(logits=logits, labels=labels)
    if not focus:
        return entropy
    # 1 - p by expm1: near p = 1, where the power's gradient is steep, it would cancel.
    return jnp.maximum(-jnp.expm1(-entropy), 1e-12) ** focus * entropy


def cross_entropy(
    *, logits: Float[Array, "... C"], labels: Int[Array, "..."]
) -> Float[Array, "..."]:
    """Cross entropy in nats; a label of -1 counts as class 0 and must have weight 0."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))


def squared_error(
    *, predictions: Float[Array, "B 1"], labels: Float[Array, " B"]
) -> Float[Array, " B"]:
    """Squared error of a real-valued label; NaN labels count as 0 and must have weight 0."""
    return (predictions[:, 0] - jnp.nan_to_num(labels)) ** 2


def task_loss(
    logits: Float[Array, "B C"], labels: Num[Array, " B"], focus: float = 0.0
) -> Float[Array, " B"]:
    """Cross entropy (or focal loss) for class labels, integers; squared error for real values."""
    if jnp.issubdtype(labels.dtype, jnp.integer):
        return focal_loss(logits=logits, labels=labels, focus=focus)
    return squared_error(predictions=logits, labels=labels)


def task_terms(
    spec: CorpusSpec,
    outputs: Float[Array, "K B C"],
    labels: Num[Array, "B tasks"],
    weights: Float[Array, "K B"],
    focus: float = 0.0,
) -> dict[str, Float[Array, ""]]:
    """{"task": the sum over tasks}, and of several tasks each one's as "task/NAME".

    A task's loss is the mean over patterns, which count alike, of its mean over the utterances
    that have its label.

    Args:
      spec: names the tasks, whose outputs stand side by side.
      outputs: under K patterns.
      labels: of each task; -1 or NaN where there is none.
      weights: of utterances under each pattern.
      focus: of the focal loss.
    """
    terms = {}
    for i, (task, logits) in enumerate(zip(spec.tasks, spec.split(outputs), strict=True)):
        mine = labels[:, i]
        there = mine >= 0 if task.classes else jnp.isfinite(mine)
        losses = jax.vmap(lambda x, y=mine: task_loss(x, y, focus))(logits)
        terms[f"task/{task.name}"] = mean_over_patterns(
            losses, jnp.where(there[None], weights, 0.0)
        )
    return {"task": jnp.sum(jnp.stack(list(terms.values())))} | (terms if len(terms) > 1 else {})


def cmd(
    x: Float[Array, "Bx h"],
    y: Float[Array, "By h"],
    *,
    x_weights: Num[Array, " Bx"] | None = None,
    y_weights: Num[Array, " By"] | None = None,
    n_moments: int = 5,
) -> Float[Array, ""]:
    """Central moment discrepancy of two batches (Zellinger et al. 2017; IF-MMIN's L_cmd).

    The distance of the means plus the distances of the central moments 2..n_moments, without
    interval scaling. A batch statistic: it is global over the batch on any number of devices.

    Args:
      x, y: two batches of features.
      x_weights, y_weights: rows of weight 0 do not count; default all 1.
      n_moments: K of the paper, 5.
    """
    x_mean, x_centred = _centre(x, x_weights)
    y_mean, y_centred = _centre(y, y_weights)
    total = _safe_norm(x_mean - y_mean)
    x_power, y_power = x_centred, y_centred
    for _ in range(n_moments - 1):
        x_power, y_power = x_power * x_centred, y_power * y_centred
        total += _safe_norm(_mean(x_power, x_weights) - _mean(y_power, y_weights))
    # A side without a single row has no moments to match.
    return jnp.where(_has_rows(x_weights) & _has_rows(y_weights), total, 0.0)


def cmd_of_pairs(features: Float[Array, "B M h"], weights: Num[Array, "B M"]) -> Float[Array, ""]:
    """Mean over the pairs of modalities of the CMD between their batches (IF-MMIN, §2.2)."""
    pairs = itertools.combinations(range(features.shape[1]), 2)
    return jnp.mean(
        jnp.stack(
            [
                cmd(
                    features[:, i],
                    features[:, j],
                    x_weights=weights[:, i],
                    y_weights=weights[:, j],
                )
                for i, j in pairs
            ]
        )
    )


def kl_to_normal(
    mean: Float[Array, "... z"], log_variance: Float[Array, "... z"]
) -> Float[Array, "..."]:
    """KL divergence in nats of N(mean, variance) from N(0, 1), summed over z."""
    return -0.5 * jnp.sum(1 + log_variance - mean**2 - jnp.exp(log_variance), axis=-1)


def _has_rows(weights):
    return True if weights is None else jnp.any(weights > 0)


def _centre(x, weights):
    mean = _mean(x, weights)
    return mean, x - mean[None]


def _mean(x, weights):
    if weights is None:
        return jnp.mean(x, axis=0)
    weights = weights.astype(x.dtype)
    return jnp.sum(x * weights[:, None], axis=0) / jnp.maximum(jnp.sum(weights), 1e-9)


def _safe_norm(x: Float[Array, " h"]) -> Float[Array, ""]:
    """Euclidean norm whose gradient at zero is zero instead of NaN."""
    square = jnp.sum(x**2)
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)

"""How a score is shown: shares in percent, errors and correlations as they are."""

from collections.abc import Sequence

import numpy as np

from mmer_jax.metrics import JOINT
from mmer_jax.report.tasks import MARK

AS_THEY_ARE = ("MAE", "−MAE", "pearson")
LOWER_IS_BETTER = ("MAE",)
CURVE_METRICS = ("WA", "UA", "MAE", "pearson", JOINT)  # what figures and significance tests show


def factor(metric: str) -> float:
    """What turns a value of results.csv into the number that is shown."""
    return 1.0 if metric in AS_THEY_ARE else 100.0


def decimals(metric: str) -> int:
    return 3 if metric in AS_THEY_ARE else 1


def label(metric: str) -> str:
    """For an axis, with the unit."""
    if metric in LOWER_IS_BETTER:
        return f"{metric} (lower is better)"
    return metric if metric in AS_THEY_ARE else f"{metric} (%)"


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (divided by n)."""
    return float(np.mean(values)), float(np.std(values))


def cell(metric: str, values: Sequence[float]) -> str:
    """'61.3 ± 2.1', the mean alone for a single trial, nothing where there is no value."""
    if not len(values):
        return ""
    mean, std = (factor(metric) * x for x in mean_std(values))
    digits = decimals(metric)
    return f"{mean:.{digits}f}" + (f" ± {std:.{digits}f}" if len(values) > 1 else "")


def better(metric: str, a: float, b: float) -> bool:
    """Whether score `a` is better than `b`."""
    return a < b if metric in LOWER_IS_BETTER else a > b


def curve_metrics(metrics: Sequence[str]) -> list[str]:
    """Those of `metrics` that curves and tests are drawn for; before a joint score the tasks'."""
    of_tasks = [metric for metric in dict.fromkeys(metrics) if metric.endswith(MARK)]
    return [*of_tasks, *(metric for metric in CURVE_METRICS if metric in metrics)]

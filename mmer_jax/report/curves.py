"""Curves over missing rates and noise levels: points with confidence, and the area below."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from mmer_jax.report.scores import Scores, Trial

RATE_PROTOCOLS = {"rate": "missing rate", "dialogue_rate": "missing rate per dialogue"}
CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Point:
    """Of a curve, in shares (or as the metric is); `low` and `high` bound the mean."""

    x: float
    mean: float
    low: float
    high: float
    trials: int


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and the bounds of its 95 % t-interval; a single value bounds itself."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return mean, mean, mean
    half = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n)
    return mean, mean - float(half), mean + float(half)


def point(x: float, values: Sequence[float]) -> Point:
    return Point(x, *mean_interval(values), trials=len(values))


def rate_curve(scores: Scores, protocol: str, metric: str) -> list[Point]:
    """One point per nominal rate, in ascending order."""
    found = {
        float(condition): scores.get((protocol, condition), metric)
        for _, condition in scores.conditions(protocol)
    }
    return [point(x, list(found[x].values())) for x in sorted(found) if found[x]]


def effective_rate(scores: Scores, condition: tuple[str, str]) -> float | None:
    """Share of modality slots that the masks removed, mean over trials."""
    values = list(scores.effective.get(condition, {}).values())
    return float(np.mean(values)) if values else None


def areas(scores: Scores, protocol: str, metric: str) -> dict[Trial, float]:
    """Area under each trial's curve over nominal rates, divided by the range of the rates.

    The division gives it the metric's unit: it is the mean height of the curve. Trials that lack
    a rate, and protocols with fewer than two rates, have none.
    """
    curve = {
        float(condition): scores.get((protocol, condition), metric)
        for _, condition in scores.conditions(protocol)
    }
    rates = sorted(curve)
    if len(rates) < 2:
        return {}
    complete = set.intersection(*(set(by_trial) for by_trial in curve.values()))
    return {
        trial: float(np.trapezoid([curve[r][trial] for r in rates], rates)) / (rates[-1] - rates[0])
        for trial in sorted(complete)
    }


def noise_types(scores: Scores) -> list[str]:
    return list(dict.fromkeys(c.split(":")[0] for _, c in scores.conditions("noise")))


def noise_curve(scores: Scores, kind: str, metric: str) -> list[Point]:
    """One point per level of this type of noise, in ascending order."""
    found = {
        float(condition.split(":", 1)[1]): scores.get(("noise", condition), metric)
        for _, condition in scores.conditions("noise")
        if condition.split(":")[0] == kind
    }
    return [point(x, list(found[x].values())) for x in sorted(found) if found[x]]

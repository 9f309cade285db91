"""Paired tests of method differences across (fold, seed)."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from mmer_jax.report.curves import areas, noise_types
from mmer_jax.report.scores import COLUMN_MEAN, Scores, Trial
from mmer_jax.report.units import curve_metrics

LEVEL = 0.05
DIGITS = 9  # results.csv has 6; what is left of a float's rounding must not break ties


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Of methods `a` and `b`: mean of a − b, Wilcoxon's p, and p adjusted over the family.

    A family is one question, asked of every pair of methods: a quantity by a metric. Other
    quantities and metrics are the same predictions seen in another way, no further chances.
    """

    a: str
    b: str
    quantity: str
    metric: str
    difference: float
    pairs: int
    p: float
    adjusted: float


def wilcoxon_p(differences: Sequence[float]) -> float:
    """Two-sided p of the signed-rank test; 1 where all differences are zero."""
    rounded = np.round(np.asarray(differences, np.float64), DIGITS)
    if not rounded.any():
        return 1.0
    return float(stats.wilcoxon(rounded, alternative="two-sided").pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, in the order given."""
    order = np.argsort(p_values, kind="stable")
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def smallest_p(pairs: int) -> float:
    """The smallest p that this many pairs can give: all differences of one sign."""
    return min(1.0, 2.0 ** (1 - pairs))


def quantities(scores: Scores, metric: str) -> dict[str, dict[Trial, float]]:
    """What methods are compared by: name -> trial -> score; empty where it was not measured."""
    full = next((scores.get(c, metric) for c in scores.conditions("full")), {})
    found = {
        "full": full,
        COLUMN_MEAN: scores.get(("average", COLUMN_MEAN), metric),
        "area under the rate curve": areas(scores, "rate", metric),
    }
    for kind in noise_types(scores):
        found[f"{kind} noise, mean of levels"] = _mean_of_levels(scores, kind, metric)
    return found


def _mean_of_levels(scores: Scores, kind: str, metric: str) -> dict[Trial, float]:
    """Mean over the levels of a type of noise, of the trials that have them all."""
    levels = [
        scores.get(c, metric) for c in scores.conditions("noise") if c[1].split(":")[0] == kind
    ]
    trials = set.intersection(*(set(level) for level in levels))
    return {trial: float(np.mean([level[trial] for level in levels])) for trial in sorted(trials)}


def compare(methods: Mapping[str, Scores]) -> list[Comparison]:
    """Every pair of methods on every quantity, over the trials that both have."""
    found = []
    for a, b in itertools.combinations(methods, 2):
        metrics = curve_metrics(methods[a].metrics("full", "average", "rate"))
        for metric in metrics:
            ours, theirs = (quantities(methods[name], metric) for name in (a, b))
            for quantity in (name for name in ours if name in theirs):
                shared = sorted(ours[quantity].keys() & theirs[quantity].keys())
                if shared:
                    d = [ours[quantity][t] - theirs[quantity][t] for t in shared]
                    mean = float(np.mean(d))
                    found.append(
                        Comparison(a, b, quantity, metric, mean, len(d), wilcoxon_p(d), 1.0)
                    )
    for family in families(found):
        adjusted = holm([found[i].p for i in family])
        for i, p in zip(family, adjusted, strict=True):
            found[i] = dataclasses.replace(found[i], adjusted=p)
    return found


def families(comparisons: Sequence[Comparison]) -> list[list[int]]:
    """Indices of the comparisons that ask the same of different pairs of methods."""
    found: dict[tuple[str, str], list[int]] = {}
    for i, c in enumerate(comparisons):
        found.setdefault((c.quantity, c.metric), []).append(i)
    return list(found.values())


def too_few(comparisons: Sequence[Comparison]) -> str:
    """What to know where p cannot fall below 0.05, whatever the scores; empty if it can."""
    fewest = min(c.pairs for c in comparisons)
    m = max(len(family) for family in families(comparisons))
    least = smallest_p(fewest)
    if least > LEVEL:
        return (
            f"**Too few pairs:** with {fewest} the test can never reach p < {LEVEL} (its smallest "
            f"p is {least:.3g}); it takes at least 6. Train more folds or seeds."
        )
    if m * least > LEVEL:
        return (
            f"**Few pairs:** with {fewest} the smallest possible p is {least:.3g}, which Holm's "
            f"adjustment over {m} comparisons can raise to {min(1.0, m * least):.3g}."
        )
    return ""

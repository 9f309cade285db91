"""The report's tables: rows of text, methods side by side."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from mmer_jax.report import curves, units
from mmer_jax.report.merge import Group
from mmer_jax.report.neighbours import (
    Study,
    error_by_measure,
    label_distance,
    rank_correlation,
)
from mmer_jax.report.scores import Condition, Scores, recalls
from mmer_jax.report.significance import Comparison
from mmer_jax.report.sweep import SweepPoint

MAX_COLUMNS = 6  # of scores, side by side on a printed page; further metrics get a table
TOP = (1, 3, 5)  # neighbours whose labels are looked at
QUARTERS = ("lowest quarter", "second", "third", "highest")
Methods = Mapping[str, Scores]


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells as text.

    Attributes:
      names: how many columns, from the left, are names and not numbers.
      best: (row, column) of cells to stand out.
    """

    header: list[str]
    rows: list[list[str]]
    names: int = 1
    best: frozenset[tuple[int, int]] = frozenset()


def score_tables(
    methods: Methods,
    conditions: Sequence[Condition],
    leading: Sequence[str],
    names: Sequence[Sequence[str]],
) -> list[Table]:
    """Mean ± std with a row per condition and a column per metric and method.

    Args:
      methods: label -> scores.
      conditions: of the rows.
      leading: heads of the first columns.
      names: cells of the first columns, per row.
    """
    protocols = {protocol for protocol, _ in conditions}
    metrics = list(dict.fromkeys(m for s in methods.values() for m in s.metrics(*protocols)))
    fit = max(1, MAX_COLUMNS // len(methods))
    size = math.ceil(len(metrics) / max(1, math.ceil(len(metrics) / fit)))  # tables of like size
    return [
        _score_table(methods, conditions, leading, names, metrics[i : i + size])
        for i in range(0, len(metrics), size)
    ]


def _score_table(methods: Methods, conditions, leading, names, metrics: Sequence[str]) -> Table:
    columns = [(metric, name) for metric in metrics for name in methods]
    header = [f"{metric} {name}" if len(methods) > 1 else metric for metric, name in columns]
    rows, best = [], set()
    for i, (condition, row) in enumerate(zip(conditions, names, strict=True)):
        values = [list(methods[n].get(condition, metric).values()) for metric, n in columns]
        cells = [units.cell(m, v) for (m, _), v in zip(columns, values, strict=True)]
        rows.append([*row, *cells])
        if len(methods) > 1:
            best |= {(i, len(row) + j) for j in _best(columns, values)}
    return Table([*leading, *header], rows, len(leading), frozenset(best))


def _best(columns: Sequence[tuple[str, str]], values: Sequence[list[float]]) -> set[int]:
    """Columns with the best mean of their metric."""
    found: dict[str, int] = {}
    for j, ((metric, _), scores) in enumerate(zip(columns, values, strict=True)):
        if not scores:
            continue
        if metric not in found or units.better(
            metric, float(np.mean(scores)), float(np.mean(values[found[metric]]))
        ):
            found[metric] = j
    return set(found.values())


def condition_rows(methods: Methods, *protocols: str) -> list[Condition]:
    """Conditions of all methods, each once, protocol by protocol."""
    return [
        condition
        for protocol in protocols
        for condition in dict.fromkeys(c for s in methods.values() for c in s.conditions(protocol))
    ]


def pattern_tables(methods: Methods) -> list[Table]:
    """Full, every missing pattern, then the two averages over them."""
    rows = condition_rows(methods, "full", "pattern", "average")
    return score_tables(methods, rows, ["available"], [[name] for _, name in rows])


def rate_tables(methods: Methods, protocol: str) -> list[Table]:
    """A row per nominal rate (or imbalanced condition) with the effective rate beside it."""
    rows = condition_rows(methods, protocol)
    if protocol in curves.RATE_PROTOCOLS:
        rows.sort(key=lambda condition: float(condition[1]))
    names = [[name, effective_text(methods, (protocol, name))] for _, name in rows]
    return score_tables(methods, rows, ["nominal rate", "effective rate"], names)


def effective_text(methods: Methods, condition: Condition) -> str:
    found = [curves.effective_rate(scores, condition) for scores in methods.values()]
    rates = [rate for rate in found if rate is not None]
    return f"{np.mean(rates):.2f}" if rates else ""


def noise_tables(methods: Methods) -> list[Table]:
    rows = condition_rows(methods, "noise")
    names = [name.split(":", 1) for _, name in rows]
    return score_tables(methods, rows, ["noise", "level"], names)


def area_table(methods: Methods) -> Table | None:
    """Area under the rate curves, a row per method and protocol; none without curves."""
    protocols = [p for p in curves.RATE_PROTOCOLS if condition_rows(methods, p)]
    metrics = list(dict.fromkeys(m for s in methods.values() for m in s.metrics(*protocols)))
    rows = []
    for protocol in protocols:
        for name, scores in methods.items():
            areas = [list(curves.areas(scores, protocol, m).values()) for m in metrics]
            if any(areas):
                cells = [units.cell(m, a) for m, a in zip(metrics, areas, strict=True)]
                rows.append([name, curves.RATE_PROTOCOLS[protocol], *cells])
    return Table(["method", "area under", *metrics], rows, 2) if rows else None


def recall_table(scores: Scores, classes: Sequence[str]) -> Table:
    """Recall in percent, a row per condition and a column per class."""
    rows = []
    for condition in recall_conditions(scores):
        found = recalls(scores.counts[condition].values(), classes)
        rows.append([condition[1], *(units.cell("recall", values) for values in found)])
    return Table(["available", *classes], rows)


def recall_conditions(scores: Scores) -> list[Condition]:
    """Full, patterns and their pooled average, where there are confusion counts."""
    return [c for c in scores.conditions("full", "pattern", "average") if c in scores.counts]


def significance_table(comparisons: Sequence[Comparison]) -> Table:
    rows = []
    for c in comparisons:
        digits = units.decimals(c.metric) + 1
        difference = f"{units.factor(c.metric) * c.difference:+.{digits}f}"
        p_values = (f"{p:.3f}" if p >= 0.001 else f"{p:.1e}" for p in (c.p, c.adjusted))
        rows.append([f"{c.a} − {c.b}", c.quantity, c.metric, difference, str(c.pairs), *p_values])
    header = ["methods", "compared by", "metric", "mean difference", "pairs", "p", "p (Holm)"]
    return Table(header, rows, 3)


def agreement_table(studies: Mapping[str, Study]) -> Table:
    """Agreement of neighbours' labels, a row per run and pattern."""
    rows = []
    for name, study in studies.items():
        for pattern in study.patterns:
            parts = study.parts(pattern)
            cells = []
            for top in TOP:
                cells.append(_cell(study, [label_distance(study, p, top) for p in parts]))
            cells.append(_cell(study, [study.chance[study.trial(p)] for p in parts]))
            rows.append([*_lead(studies, name), pattern, *cells])
    header = [*_lead(studies, "run"), "available", *(f"top-{n}" for n in TOP), "chance"]
    return Table(header, rows, len(header) - len(TOP) - 1)


def hardness_table(studies: Mapping[str, Study]) -> Table | None:
    """The error in each quarter by the measure, and their correlation; None without a measure."""
    rows = []
    for name, study in studies.items():
        for pattern in study.patterns if study.measure else ():
            parts = study.parts(pattern)
            found = [error_by_measure(study, p, len(QUARTERS)) for p in parts]
            errors = np.array([pair[1] for pair in found if pair]).T
            cells = [units.cell(study.metric, values) for values in errors]
            cells = cells or [""] * len(QUARTERS)
            ranks = [rank_correlation(study, p) for p in parts]
            ranks_cell = units.cell("pearson", [r for r in ranks if r is not None])
            rows.append([*_lead(studies, name), pattern, str(study.measure), *cells, ranks_cell])
    header = [*_lead(studies, "run"), "available", "by", *QUARTERS, "rank correlation"]
    return Table(header, rows, len(header) - len(QUARTERS) - 1) if rows else None


def _cell(study: Study, distances: Sequence[float | None]) -> str:
    """Of classes the agreement, of real-valued labels the distance."""
    known = [d for d in distances if d is not None and np.isfinite(d)]
    return units.cell(study.metric, [1 - d for d in known] if study.classes else known)


def _lead(studies: Mapping[str, Study], cell: str) -> list[str]:
    """A column for the run, where there are several."""
    return [cell] if len(studies) > 1 else []


def sweep_table(points: Sequence[SweepPoint], metric: str) -> Table:
    """A row per point: its overrides, validation score, trials, and which one was chosen."""
    keys = list(points[0].overrides)
    rows = [
        [
            str(point.number),
            *(point.overrides[key] for key in keys),
            "diverged" if point.diverged else units.cell(metric, point.scores),
            str(len(point.scores)),
            "chosen" if point.chosen else "",
        ]
        for point in points
    ]
    best = frozenset((i, len(keys) + 1) for i, point in enumerate(points) if point.chosen)
    return Table(["point", *keys, f"validation {metric}", "trials", ""], rows, 1 + len(keys), best)


def runs_table(group: Group) -> Table:
    """What was run, a row per run."""
    rows = [
        [
            name,
            run.method,
            str(run.workdir),
            *(str(len({trial[i] for trial in run.scores.trials()})) for i in (0, 1)),
        ]
        for name, run in group.runs.items()
    ]
    return Table(["run", "method", "workdir", "folds", "seeds"], rows, 3)

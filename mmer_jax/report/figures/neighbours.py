"""Error against hardness (or similarity), and how far neighbours share the label."""

import numpy as np

from mmer_jax.report import units
from mmer_jax.report.figures.drawing import (
    Drawing,
    colour,
    legend_above,
    line,
    marker,
    new_figure,
)
from mmer_jax.report.neighbours import Study, error_by_measure, label_distance

GROUPS = 8  # of utterances, by rising hardness


def hardness_and_agreement(study: Study) -> Drawing:
    """A curve per pattern, means over trials; the left panel only where there is a measure."""
    figure = new_figure(3.1)
    panels = figure.subplots(1, 2 if study.measure else 1, squeeze=False)[0]
    rows: list[list[object]] = []
    for i, pattern in enumerate(study.patterns):
        parts = study.parts(pattern)
        if study.measure:
            found = [pair for p in parts if (pair := error_by_measure(study, p, GROUPS))]
            if found:
                x, y = np.array(found).mean(axis=0)
                y = units.factor(study.metric) * y
                _plot(panels[0], x, y, i, pattern)
                rows += [["error", pattern, *pair] for pair in zip(x.tolist(), y, strict=True)]
        tops = range(1, study.distances.shape[1] + 1)
        shares = [_mean(study, [label_distance(study, p, top) for p in parts]) for top in tops]
        _plot(panels[-1], tops, shares, i, pattern)
        rows += [["neighbours", pattern, *pair] for pair in zip(tops, shares, strict=True)]
    chance = _mean(study, list(study.chance.values()))
    panels[-1].axhline(chance, color="#777777", linestyle=":", linewidth=1.2, label="chance")
    rows.append(["chance", "", "", chance])
    if study.measure:
        panels[0].set_xlabel(f"{study.measure} (groups of equal size)")
        panels[0].set_ylabel(units.label(study.metric))
    panels[-1].set_xlabel("nearest neighbours")
    what = "with the same label (%)" if study.classes else "distance of their labels"
    panels[-1].set_ylabel(what)
    panels[-1].set_xticks(range(1, study.distances.shape[1] + 1))
    legend_above(figure, panels)
    return Drawing(figure, ["panel", "available", "x", "y"], rows)


def _mean(study: Study, distances: list[float | None]) -> float:
    """As shown; NaN where there is nothing."""
    known = [d for d in distances if d is not None and np.isfinite(d)]
    if not known:
        return float("nan")
    mean = float(np.mean(known))
    return units.factor(study.metric) * (1 - mean if study.classes else mean)


def _plot(axes, x, y, i: int, label: str) -> None:
    axes.plot(
        x,
        y,
        color=colour(i),
        linestyle=line(i),
        marker=marker(i),
        markeredgecolor="white",
        markeredgewidth=0.5,
        label=label,
    )

"""Curves over missing rates and over noise levels, with confidence bands."""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence

from mmer_jax.report import curves, units
from mmer_jax.report.curves import Point
from mmer_jax.report.figures.drawing import (
    Drawing,
    colour,
    hide_inner_ticks,
    legend_above,
    line,
    marker,
    new_figure,
)
from mmer_jax.report.scores import Scores

Methods = Mapping[str, Scores]
NUMBERS = ["mean", "low", "high", "trials"]


def rate_curves(methods: Methods, protocol: str, metrics: Sequence[str]) -> Drawing:
    """A panel per metric, a curve per method over nominal rates."""
    figure = new_figure(2.9)
    rows: list[list[object]] = []
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        curve = functools.partial(curves.rate_curve, protocol=protocol, metric=metric)
        drawn = _draw(axes, methods, curve, metric)
        for name, point in drawn:
            effective = curves.effective_rate(methods[name], (protocol, f"{point.x:.1f}"))
            rows.append([name, metric, point.x, effective, *_numbers(point, metric)])
        axes.set_xlabel(f"nominal {curves.RATE_PROTOCOLS[protocol]}")
        axes.set_ylabel(units.label(metric))
        axes.set_xticks(sorted({point.x for _, point in drawn}))
    legend_above(figure, panels)
    return Drawing(figure, ["method", "metric", "nominal_rate", "effective_rate", *NUMBERS], rows)


def noise_curves(methods: Methods, metric: str) -> Drawing:
    """A panel per type of noise, a curve per method over its levels."""
    kinds = list(dict.fromkeys(k for s in methods.values() for k in curves.noise_types(s)))
    n_columns = min(3, len(kinds))
    n_rows = -(-len(kinds) // n_columns)
    figure = new_figure(0.4 + 2.3 * n_rows)
    panels = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True).ravel()
    rows: list[list[object]] = []
    for axes, kind in zip(panels, kinds, strict=False):
        curve = functools.partial(curves.noise_curve, kind=kind, metric=metric)
        drawn = _draw(axes, methods, curve, metric)
        rows += [[name, metric, kind, point.x, *_numbers(point, metric)] for name, point in drawn]
        axes.set_title(kind)
        axes.set_xlabel("noise level")
        _level_ticks(axes, sorted({point.x for _, point in drawn}))
        hide_inner_ticks(axes)
    for axes in panels[::n_columns]:
        axes.set_ylabel(units.label(metric))
    for axes in panels[len(kinds) :]:
        axes.remove()
    legend_above(figure, panels[: len(kinds)])
    return Drawing(figure, ["method", "metric", "noise", "level", *NUMBERS], rows)


def _level_ticks(axes, levels: list[float]) -> None:
    """At the levels themselves unless they would run into each other."""
    gaps = [b - a for a, b in itertools.pairwise(levels)]
    if all(gap > 0.07 * (levels[-1] - levels[0]) for gap in gaps):
        axes.set_xticks(levels)


def _draw(
    axes, methods: Methods, curve: Callable[[Scores], list[Point]], metric: str
) -> list[tuple[str, Point]]:
    """A curve with its band per method; returns the points drawn."""
    scale, drawn = units.factor(metric), []
    for i, (name, scores) in enumerate(methods.items()):
        points = curve(scores)
        if not points:
            continue
        x = [point.x for point in points]
        low, high = ([scale * getattr(p, end) for p in points] for end in ("low", "high"))
        axes.fill_between(x, low, high, color=colour(i), alpha=0.16, linewidth=0)
        axes.plot(
            x,
            [scale * point.mean for point in points],
            color=colour(i),
            linestyle=line(i),
            marker=marker(i),
            markeredgecolor="white",
            markeredgewidth=0.5,
            label=name,
        )
        drawn += [(name, point) for point in points]
    return drawn


def _numbers(point: Point, metric: str) -> list[object]:
    scale = units.factor(metric)
    return [scale * point.mean, scale * point.low, scale * point.high, point.trials]

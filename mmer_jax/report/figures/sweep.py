"""Validation score against every numerically swept key."""

from collections.abc import Sequence

from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from mmer_jax.report import units
from mmer_jax.report.figures.drawing import Drawing, colour, hide_inner_ticks, new_figure
from mmer_jax.report.sweep import SweepPoint, numeric_values

LOG_SPAN = 20  # values that span more are drawn on a logarithmic axis
MAX_TICKS = 7


def swept_keys(points: Sequence[SweepPoint]) -> list[str]:
    """Keys that the figure has a panel for."""
    drawn = [point for point in points if not point.diverged]
    return [key for key in points[0].overrides if numeric_values(drawn, key)]


def sweep_scores(points: Sequence[SweepPoint], metric: str) -> Drawing:
    """A panel per key; mean ± std over trials of each point, the chosen one as a star.

    Points that diverged are left out.
    """
    keys = swept_keys(points)
    points = [point for point in points if not point.diverged]
    n_columns = min(3, len(keys))
    n_rows = -(-len(keys) // n_columns)
    figure = new_figure(2.6 * n_rows, width=2.4 * n_columns + (1.2 if n_columns == 1 else 0))
    panels = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True).ravel()
    rows: list[list[object]] = []
    for axes, key in zip(panels, keys, strict=False):
        values = numeric_values(points, key) or []
        for x, point in zip(values, points, strict=True):
            mean, std = (units.factor(metric) * v for v in units.mean_std(point.scores))
            _mark(axes, x, mean, std, chosen=point.chosen)
            rows.append([key, point.number, x, mean, std, len(point.scores), int(point.chosen)])
        _axis(axes, sorted(set(values)))
        axes.set_xlabel(_broken(key))
        hide_inner_ticks(axes)
    for axes in panels[::n_columns]:
        axes.set_ylabel(f"validation {units.label(metric)}")
    for axes in panels[len(keys) :]:
        axes.remove()
    return Drawing(figure, ["key", "point", "value", "mean", "std", "trials", "chosen"], rows)


def _broken(key: str) -> str:
    """A long key on two lines, broken at its last dot."""
    section, dot, name = key.rpartition(".")
    return f"{section}{dot}\n{name}" if len(key) > 28 else key


def _mark(axes, x: float, mean: float, std: float, *, chosen: bool) -> None:
    axes.errorbar(
        x,
        mean,
        yerr=std,
        fmt="*" if chosen else "o",
        color=colour(1 if chosen else 0),
        markersize=11 if chosen else 4.5,
        markeredgecolor="white",
        markeredgewidth=0.5,
        elinewidth=0.9,
        zorder=3 if chosen else 2,
    )


def _axis(axes, values: list[float]) -> None:
    """Ticks at the swept values, thinned out where they are many."""
    if values[0] > 0 and values[-1] / values[0] > LOG_SPAN:
        axes.set_xscale("log")
    step = -(-len(values) // MAX_TICKS)
    axes.xaxis.set_major_locator(FixedLocator(values[::step]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.margins(x=0.12)

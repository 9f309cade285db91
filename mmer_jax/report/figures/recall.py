"""Recall per class under every condition: where a missing modality hurts whom."""

from collections.abc import Mapping, Sequence

from mmer_jax.report import units
from mmer_jax.report.figures.drawing import Drawing, colour, legend_above, marker, new_figure
from mmer_jax.report.scores import Scores, recalls
from mmer_jax.report.tables import recall_conditions


def class_recalls(methods: Mapping[str, Scores], classes: Sequence[str]) -> Drawing:
    """A panel per class, a row per condition, a marker per method; bars are ± std."""
    conditions = list(dict.fromkeys(c for s in methods.values() for c in recall_conditions(s)))
    n_rows, n_columns = _grid(len(classes))
    step = 0.2 + 0.07 * len(methods)
    figure = new_figure(0.6 + n_rows * (0.5 + step * len(conditions)))
    panels = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True).ravel()
    rows: list[list[object]] = []
    for i, (name, scores) in enumerate(methods.items()):
        for y, condition in enumerate(conditions):
            if condition not in scores.counts:
                continue
            found = recalls(scores.counts[condition].values(), classes)
            for axes, kind, values in zip(panels, classes, found, strict=False):
                if values:
                    mean, std = (100 * value for value in units.mean_std(values))
                    place = y + _offset(i, len(methods))
                    _mark(axes, mean, std, place, i, name if y == 0 else None)
                    rows.append([name, condition[1], kind, mean, std, len(values)])
    for axes, kind in zip(panels, classes, strict=False):
        _finish(axes, kind, [name for _, name in conditions])
    for axes in panels[len(classes) :]:
        axes.remove()
    for axes in panels[max(0, len(classes) - n_columns) : len(classes)]:
        axes.set_xlabel("recall (%)")
    legend_above(figure, panels[: len(classes)])
    return Drawing(figure, ["method", "available", "class", "recall", "std", "trials"], rows)


def _grid(n: int) -> tuple[int, int]:
    """Rows and columns for n panels: at most 4 in a row, and few empty places."""
    columns = n if n <= 4 else min((4, 3), key=lambda columns: -n % columns)
    return -(-n // columns), columns


def _offset(i: int, n: int) -> float:
    """Methods of one condition lie one below the other."""
    return (i - (n - 1) / 2) * 0.7 / max(n, 2)


def _mark(axes, mean: float, std: float, y: float, i: int, label: str | None) -> None:
    axes.errorbar(
        mean,
        y,
        xerr=std,
        fmt=marker(i),
        color=colour(i),
        markersize=4,
        markeredgecolor="white",
        markeredgewidth=0.4,
        elinewidth=0.9,
        label=label,
    )


def _finish(axes, title: str, names: list[str]) -> None:
    axes.set_title(title)
    axes.set_xlim(0, 100)
    axes.set_xticks([0, 25, 50, 75, 100], ["0", "", "50", "", "100"])
    axes.xaxis.set_tick_params(labelbottom=True)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)

"""Training curves: validation score and loss per stage and epoch, over all trials."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from mmer_jax.report import units
from mmer_jax.report.figures.drawing import Drawing, colour, new_figure

LOG_SPAN = 20  # losses that span more are drawn on a logarithmic axis

Series = dict[int, list[float]]  # epoch -> a value per trial


def training_curves(epochs: Sequence[dict], metric: str) -> Drawing:
    """A column per stage; the validation score above, the loss below; mean with min–max band.

    Args:
      epochs: lines of metrics.jsonl.
      metric: what the validation score is, UA or −MAE.
    """
    stages = list(dict.fromkeys(record["stage"] for record in epochs))
    figure = new_figure(3.8)
    panels = figure.subplots(2, len(stages), squeeze=False, sharex="col")
    for axes in panels[0, 1:]:
        axes.sharey(panels[0, 0])  # scores compare between stages, losses do not
    rows: list[list[object]] = []
    for column, stage in enumerate(stages):
        shown = (("validation_score", units.factor(metric)), ("loss", 1.0))
        for axes, (name, scale) in zip(panels[:, column], shown, strict=True):
            series = _series(epochs, stage, name, scale)
            rows += [[stage, name, *numbers] for numbers in _draw(axes, series, colour(0))]
        _loss_axis(panels[1, column])
        panels[0, column].set_title(f"stage {stage}")
        panels[1, column].set_xlabel("epoch")
        panels[1, column].xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0, 0].set_ylabel(f"validation {units.label(metric)}")
    panels[1, 0].set_ylabel("training loss")
    header = ["stage", "quantity", "epoch", "mean", "min", "max", "trials"]
    return Drawing(figure, header, rows)


def _loss_axis(axes) -> None:
    """Logarithmic where a first epoch would flatten all others."""
    low, high = axes.dataLim.intervaly
    if 0 < low and LOG_SPAN * low < high:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if high < 1000 * low else (1.0,)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))


def _series(epochs: Sequence[dict], stage: str, name: str, scale: float) -> Series:
    """Values by epoch; a trial's later line of the same epoch replaces an earlier one."""
    latest = {
        (record["epoch"], record["fold"], record["seed"]): scale * record[name]
        for record in epochs
        if record["stage"] == stage and record[name] is not None  # a trial that diverged
    }
    found: Series = defaultdict(list)
    for (epoch, _, _), value in sorted(latest.items()):
        found[epoch].append(value)
    return found


def _draw(axes, series: Series, shade: str) -> list[list[object]]:
    epochs = sorted(series)
    mean = [float(np.mean(series[e])) for e in epochs]
    low, high = ([end(series[e]) for e in epochs] for end in (min, max))
    axes.fill_between(epochs, low, high, color=shade, alpha=0.18, linewidth=0)
    axes.plot(epochs, mean, color=shade, marker="o" if len(epochs) < 3 else None)
    counts = [len(series[e]) for e in epochs]
    return [list(row) for row in zip(epochs, mean, low, high, counts, strict=True)]

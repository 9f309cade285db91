"""Confusion matrices: percent of the true class, with counts summed over trials."""

import numpy as np

from mmer_jax.report.figures.drawing import WIDTH, Drawing, new_figure
from mmer_jax.report.scores import POOLED, Scores, total

MAX_WITH_COUNTS = 7  # classes; the cells of more are too small for a second line


def confusion_matrices(scores: Scores, classes: list[str]) -> Drawing:
    """Full modality beside all missing patterns pooled, rows are the truth."""
    full = [c for c in scores.conditions("full") if c in scores.counts]
    conditions = full + [c for c in [("average", POOLED)] if c in scores.counts]
    width = WIDTH if len(conditions) > 1 else WIDTH * 0.58
    figure = new_figure(3.5 + (0.35 if _steep(classes) else 0), width=width)
    panels = figure.subplots(1, len(conditions), squeeze=False, sharey=True)[0]
    rows: list[list[object]] = []
    for axes, condition in zip(panels, conditions, strict=True):
        counts = total(scores.counts[condition].values(), classes)
        percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        image = _matrix(axes, percent, counts, classes)
        name = f"full: {condition[1]}" if condition in full else condition[1]
        axes.set_title(name)
        rows += [
            [name, truth, predicted, float(percent[i, j]), int(counts[i, j])]
            for i, truth in enumerate(classes)
            for j, predicted in enumerate(classes)
        ]
    panels[0].set_ylabel("true class")
    bar = figure.colorbar(image, ax=panels, shrink=0.8, aspect=25, pad=0.02)
    bar.set_label("share of the true class (%)")
    bar.outline.set_visible(False)
    return Drawing(figure, ["condition", "truth", "predicted", "percent", "count"], rows)


def shows_counts(classes: list[str]) -> bool:
    return len(classes) <= MAX_WITH_COUNTS


def _steep(classes: list[str]) -> bool:
    """Whether names side by side would run into each other."""
    return max(map(len, classes)) * len(classes) > 32


def _matrix(axes, percent: np.ndarray, counts: np.ndarray, classes: list[str]):
    image = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    steep = _steep(classes)
    axes.set_xticks(
        range(len(classes)),
        classes,
        rotation=40 if steep else 0,
        ha="right" if steep else "center",
        rotation_mode="anchor" if steep else "default",
    )
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted class")
    with_counts = shows_counts(classes)
    for i, j in np.ndindex(percent.shape):
        shade = "white" if percent[i, j] > 68 else "black"
        place = {"ha": "center", "va": "center", "color": shade}
        size = min(8.5, 90 / len(classes))
        axes.text(j, i - 0.12 * with_counts, f"{percent[i, j]:.0f}", size=size, **place)
        if with_counts:
            axes.text(j, i + 0.24, f"{counts[i, j]}", size=6.3, **place)
    return image

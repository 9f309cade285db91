"""Which classes of two tasks go together: in the labels, and in the predictions."""

import numpy as np

from mmer_jax.pairs import Pairs, chance_ratio, cramers_v
from mmer_jax.report.figures.drawing import Drawing, hide_inner_ticks, new_figure

LARGEST = 320  # points², of the circle of the most frequent pair
RATIOS = {-2: "¼", -1: "½", 0: "1", 1: "2", 2: "4"}  # log2 -> how it is written


def pair_circles(pairs: Pairs) -> Drawing:
    """A circle per pair of classes.

    Its area is the share of the panel's utterances, its colour how many times as often as by chance
    the two go together.
    """
    first, second = pairs.classes
    figure = new_figure(0.9 + 0.3 * max(3, len(first)))
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    rows: list[list[object]] = []
    for axes, (name, counts) in zip(
        panels, (("labels", pairs.labels), ("predictions", pairs.predictions)), strict=True
    ):
        share, ratio = counts / max(int(counts.sum()), 1), chance_ratio(counts)
        i, j = np.nonzero(counts)
        circles = axes.scatter(
            j,
            i,
            s=LARGEST * share[i, j] / max(float(share.max()), 1e-12),
            c=np.log2(ratio[i, j]),
            cmap="RdBu_r",
            vmin=min(RATIOS),
            vmax=max(RATIOS),
            edgecolors="#777777",
            linewidths=0.5,
        )
        axes.set_title(f"{name} (Cramér's V {cramers_v(counts):.2f})")
        axes.set_xticks(range(len(second)), second, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(first)), first)
        axes.set_xlabel(pairs.names[1])
        axes.margins(x=0.6 / len(second), y=0.6 / len(first))
        hide_inner_ticks(axes)
        rows += [
            [name, first[a], second[b], float(100 * share[a, b]), int(counts[a, b]), times]
            for a, b in np.ndindex(counts.shape)
            for times in [float(ratio[a, b]) if np.isfinite(ratio[a, b]) else ""]
        ]
    panels[0].set_ylabel(pairs.names[0])
    panels[0].invert_yaxis()
    bar = figure.colorbar(circles, ax=panels, shrink=0.8, aspect=25, pad=0.02)
    bar.set_ticks(list(RATIOS), labels=list(RATIOS.values()))
    bar.set_label("times as often as by chance")
    bar.outline.set_visible(False)
    return Drawing(figure, ["of", *pairs.names, "percent", "count", "times_chance"], rows)

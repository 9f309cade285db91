"""Which classes of two tasks go together: in the labels, and in the predictions."""

import numpy as np

from mmer_jax.pairs import Pairs, cramers_v
from mmer_jax.report.figures.drawing import Drawing, colour, hide_inner_ticks, new_figure

LARGEST = 320  # points², of the circle of the most frequent pair


def pair_circles(pairs: Pairs) -> Drawing:
    """A circle per pair of classes, its area the share of the panel's utterances."""
    first, second = pairs.classes
    figure = new_figure(0.9 + 0.3 * max(3, len(first)))
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    rows: list[list[object]] = []
    shown = (("labels", pairs.labels), ("predictions", pairs.predictions))
    for number, (axes, (name, counts)) in enumerate(zip(panels, shown, strict=True)):
        share = counts / max(int(counts.sum()), 1)
        i, j = np.nonzero(counts)
        area = LARGEST * share[i, j] / max(float(share.max()), 1e-12)
        axes.scatter(j, i, s=area, color=colour(number), alpha=0.75, linewidth=0)
        axes.set_title(f"{name} (Cramér's V {cramers_v(counts):.2f})")
        axes.set_xticks(range(len(second)), second, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(first)), first)
        axes.set_xlabel(pairs.names[1])
        axes.margins(x=0.6 / len(second), y=0.6 / len(first))
        hide_inner_ticks(axes)
        rows += [
            [name, first[a], second[b], float(100 * share[a, b]), int(counts[a, b])]
            for a, b in np.ndindex(counts.shape)
        ]
    panels[0].set_ylabel(pairs.names[0])
    panels[0].invert_yaxis()
    return Drawing(figure, ["of", *pairs.names, "percent", "count"], rows)

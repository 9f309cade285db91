"""The invariant features in two dimensions: do the modalities lie on top of each other?"""

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from mmer_jax.report.figures.drawing import (
    Drawing,
    colour,
    hide_inner_ticks,
    marker,
    new_figure,
)
from mmer_jax.report.runs import Invariants

MAX_POINTS = 600  # utterances drawn; more hide each other


def principal_plane(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates on the first two principal components, and the share of variance of each.

    Args:
      x: [n, h] with n ≥ 1; fewer than two components are filled up with zeros.
    Returns:
      [n, 2] and [2]. The largest coefficient of a component is positive, so that the same
      features give the same picture.
    """
    centred = x - x.mean(axis=0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    axes = (
        axes[:2]
        * np.sign(axes[:2][np.arange(len(axes[:2])), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    )
    share = singular**2 / max(float((singular**2).sum()), 1e-30)
    missing = 2 - len(axes)
    return np.pad(centred @ axes.T, ((0, 0), (0, missing))), np.pad(share[:2], (0, missing))


def projection(invariants: Invariants) -> Drawing:
    """Left by modality, right by emotion (colour and marker both).

    The plane is that of all utterances and modalities; at most MAX_POINTS utterances, evenly
    spaced, are drawn.
    """
    features = np.asarray(invariants.features, np.float64)
    n, n_modalities, width = features.shape
    plane, share = principal_plane(features.reshape(-1, width))
    rows = np.unique(np.linspace(0, n - 1, min(n, MAX_POINTS)).round().astype(int))
    points, labels = plane.reshape(n, n_modalities, 2)[rows], invariants.labels[rows]

    figure = new_figure(3.5)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    for m, name in enumerate(invariants.modalities):
        _scatter(left, points[:, m], m, name)
    left.set_title("by modality")
    _by_label(figure, right, points, labels, invariants.classes)
    for axes in (left, right):
        axes.set_xlabel(f"component 1 ({100 * share[0]:.0f} % of variance)")
        if axes is left or invariants.classes:
            n = len(axes.collections)
            axes.legend(
                loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=n if n < 5 else 3,
                handletextpad=0.2, columnspacing=1.0, markerscale=1.6,
            )  # fmt: skip
    hide_inner_ticks(right)
    left.set_ylabel(f"component 2 ({100 * share[1]:.0f} % of variance)")
    return Drawing(
        figure,
        ["utterance", "modality", "label", "component_1", "component_2"],
        [
            [int(rows[i]), name, _label(labels[i], invariants.classes), *map(float, points[i, m])]
            for i in range(len(rows))
            for m, name in enumerate(invariants.modalities)
        ],
    )


def _by_label(figure, axes, points: np.ndarray, labels: np.ndarray, classes: list[str]) -> None:
    if classes:
        for c, name in enumerate(classes):
            _scatter(axes, points[labels == c].reshape(-1, 2), c, name)
        axes.set_title("by emotion")
        return
    scale = Normalize(float(labels.min()), float(labels.max()))
    values = np.repeat(labels, points.shape[1])
    x, y = points.reshape(-1, 2).T
    axes.scatter(x, y, c=values, cmap="cividis", norm=scale, s=8, linewidths=0, rasterized=True)
    axes.set_title("by label")
    figure.colorbar(ScalarMappable(scale, "cividis"), ax=axes, label="label")


def _scatter(axes, points: np.ndarray, i: int, name: str) -> None:
    # Every other marker is hollow, which tells them apart in grey. Drawn as a picture inside the
    # SVG: thousands of paths would make the report slow to open.
    axes.scatter(
        *points.T, s=9, facecolors=colour(i) if i % 2 == 0 else "none", edgecolors=colour(i),
        marker=marker(i), alpha=0.6, linewidths=0.7 * (i % 2), label=name, rasterized=True,
    )  # fmt: skip


def _label(label, classes: list[str]) -> object:
    return classes[int(label)] if classes else float(label)

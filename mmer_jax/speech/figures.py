"""Figures of pronunciation: goodness over a corpus, and the phones of one utterance."""

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from mmer_jax.report.figures.drawing import Drawing, colour, new_figure
from mmer_jax.speech.features import FRAME_SECONDS, HIGHEST, N_MELS
from mmer_jax.speech.intensity import IntensityScale
from mmer_jax.speech.phones import PHONES
from mmer_jax.speech.scoring import Scored

L1_NAME = "L1"
INTENSITY_COLOURS = "cividis"  # even in lightness, and for colour-blind readers


def goodness_figure(columns, values, means: np.ndarray, lengths, split: str) -> Drawing:
    """Goodness of the utterances of a split by accent, and of each phone in L1 and L2.

    Args:
      columns: of utterances.csv, [N].
      values: phone columns of an annotated directory, [sum P].
      means: [N] goodness of the utterances.
      lengths: [N] phones of each.
    """
    figure = new_figure(3.4)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.7))
    rows: list[list[object]] = []
    accents = sorted(set(map(str, columns["accent"])))
    for place, accent in enumerate(accents):
        mine = means[(columns["split"] == split) & (columns["accent"] == accent)]
        spread = np.random.default_rng(place).uniform(-0.28, 0.28, len(mine))
        left.plot(place + spread, mine, ".", ms=3, color=colour(bool(accent)), alpha=0.5)
        left.hlines(np.median(mine), place - 0.38, place + 0.38, color="black", lw=1.4)
        rows += [["utterance", accent or L1_NAME, float(value)] for value in mine]
    left.set_xticks(range(len(accents)), [accent or L1_NAME for accent in accents])
    left.set_ylabel("goodness of the utterance (nats)")
    left.set_title(f"utterances of split '{split}'")
    left.grid(axis="x", visible=False)
    rows += _phones(right, columns, values, lengths, split)
    return Drawing(figure, ["of", "name", "goodness"], rows)


def _phones(axes, columns, values, lengths, split: str) -> list[list[object]]:
    """Mean goodness of each phone, L1 and L2, the worst of L2 first."""
    mine = np.repeat(columns["split"] == split, lengths) & (values["word"] >= 0)
    foreign = np.repeat(columns["accent"] != "", lengths)
    found = {}
    for phone in sorted(set(values["phone"][mine].astype(int))):
        here = mine & (values["phone"] == phone)
        if (here & foreign).any() and (here & ~foreign).any():
            sides = (here & ~foreign, here & foreign)
            found[PHONES[phone]] = [float(values["goodness"][s].mean()) for s in sides]
    names = sorted(found, key=lambda name: found[name][1])
    place = np.arange(len(names))
    for side, (name, mark) in enumerate(((L1_NAME, "o"), ("L2", "s"))):
        heights = [found[n][side] for n in names]
        axes.plot(place, heights, mark, ms=3.5, color=colour(side), label=name)
    axes.vlines(
        place, [found[n][1] for n in names], [found[n][0] for n in names], color="#bbbbbb", lw=0.8
    )
    axes.set_xticks(place, names, rotation=90, size=6.5)
    axes.set_title("mean of each phone")
    axes.legend(loc="lower right")
    axes.grid(axis="x", visible=False)
    return [
        [f"phone {name}", side, found[name][i]]
        for i, side in enumerate((L1_NAME, "L2"))
        for name in names
    ]


def utterance_figure(scored: Scored, mel: np.ndarray, scale: IntensityScale) -> Drawing:
    """Phones on the spectrogram, coloured by the intensity of the accent.

    Args:
      mel: [F, 80] log-mel spectrum.
    """
    figure = new_figure(3.0)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    _spectrogram(above, mel)
    above.set_title(" ".join(scored.word_names))
    values = scale.intensity(scored.goodness)
    colours = matplotlib.colormaps[INTENSITY_COLOURS]
    for i in np.flatnonzero(scored.words >= 0):
        above.axvline(scored.starts[i], color=colour(0), lw=0.5, alpha=0.7)
        _phone(below, scored, i, colours(values[i]), "white" if values[i] < 0.5 else "black")
    below.set_ylim(0, 1)
    below.set_yticks([])
    below.set_xlabel("time (s)")
    for panel in (above, below):
        panel.grid(False)
    scalar = ScalarMappable(Normalize(0, 1), colours)
    bar = figure.colorbar(scalar, ax=(above, below), aspect=25, pad=0.02)
    bar.set_label("accent intensity")
    bar.outline.set_visible(False)
    names = [PHONES[phone] for phone in scored.phones]
    columns = (scored.words, scored.starts, scored.ends, scored.goodness, values)
    rows = zip(names, *(column.tolist() for column in columns), strict=True)
    header = ["phone", "word", "start", "end", "goodness", "intensity"]
    return Drawing(figure, header, list(map(list, rows)))


def _spectrogram(axes, mel: np.ndarray) -> None:
    axes.imshow(
        mel.T,
        origin="lower",
        aspect="auto",
        cmap="Greys",
        extent=(0, len(mel) * FRAME_SECONDS, 0, N_MELS),
        vmin=np.quantile(mel, 0.05),
        vmax=mel.max(),
        interpolation="nearest",
    )
    axes.set_ylabel(f"mel band (to {HIGHEST / 1000:.0f} kHz)")


def _phone(axes, scored: Scored, i: int, fill, ink: str) -> None:
    """A phone as a box in its colour; the name stands upright where the box is narrow."""
    start, end = scored.starts[i], scored.ends[i]
    axes.bar(start, 1, end - start, align="edge", color=fill, edgecolor="white", linewidth=0.6)
    narrow = (end - start) < 0.022 * scored.ends.max()
    place = {"ha": "center", "va": "center", "rotation": 90 if narrow else 0}
    axes.text((start + end) / 2, 0.5, PHONES[scored.phones[i]], color=ink, size=6.5, **place)


def comparison_figure(learners: np.ndarray, reference: np.ndarray) -> Drawing:
    """Goodness of the same sentences by learners and by the L1 voice, both [N]."""
    figure = new_figure(2.8)
    left, right = figure.subplots(1, 2)
    edges = np.linspace(min(learners.min(), reference.min()), max(0, reference.max()), 30)
    for i, (values, name) in enumerate(((reference, "L1 voice"), (learners, "learners"))):
        left.hist(values, edges, color=colour(i), alpha=0.65, label=name)
    left.set_xlabel("goodness of the utterance (nats)")
    left.set_ylabel("utterances")
    left.legend(loc="upper left")
    right.plot(reference, learners, ".", ms=4, color=colour(0), alpha=0.7)
    low = edges[0]
    right.plot([low, 0], [low, 0], color="#888888", lw=0.8)
    right.set_xlabel("L1 voice (nats)")
    right.set_ylabel("learner (nats)")
    right.set_title("same sentence")
    rows = [[float(a), float(b)] for a, b in zip(learners, reference, strict=True)]
    return Drawing(figure, ["learner", "l1_voice"], rows)

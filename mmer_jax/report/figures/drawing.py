"""A figure with its numbers: one look for all, and how both are written.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; markers and line styles
differ too, so that a grey print stays readable.
"""

import csv
import dataclasses
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from mmer_jax.records import write_atomically

WIDTH = 7.2  # inches, the text width of a page
DPI = 200
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#000000", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "p", "X", "<", ">")
DASHES = ((5, 1.5), (1.2, 1.2), (6, 1.5, 1.2, 1.5), (3, 1, 1, 1, 1, 1))  # after a full line
LOOK = {
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "text.parse_math": False,  # a class may be called a$b
    "svg.hashsalt": "mmer_jax",  # the same numbers give the same file
    "svg.fonttype": "path",
}


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A figure and the numbers in it, in the units that it shows."""

    figure: Figure
    header: Sequence[str]
    rows: Sequence[Sequence[object]]


def look():
    """Context in which figures are drawn and saved; matplotlib's settings return after it."""
    return matplotlib.rc_context(LOOK)


def colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def marker(i: int) -> str:
    return MARKERS[i % len(MARKERS)]


def line(i: int):
    i %= len(DASHES) + 1
    return (0, DASHES[i - 1]) if i else "-"


def new_figure(height: float, *, width: float = WIDTH) -> Figure:
    """A figure whose parts make room for each other; inches."""
    return Figure(figsize=(width, height), layout="constrained")


def legend_above(figure: Figure, panels) -> None:
    """One legend for all panels, above them; none for a single entry."""
    found: dict[str, Artist] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    if len(found) > 1:
        columns = max(1, 100 // (max(map(len, found)) + 9))  # about 100 letters to a line
        names = list(found)
        figure.legend(
            list(found.values()), names, loc="outside upper center", ncols=min(columns, len(names))
        )


def hide_inner_ticks(axes) -> None:
    """Of a panel that shares the y-axis of its left neighbour."""
    if not axes.get_subplotspec().is_first_col():
        axes.yaxis.set_tick_params(length=0)


def save(drawing: Drawing, folder: Path, stem: str) -> str:
    """Write stem.png, stem.svg and stem.csv; returns the SVG's text."""
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = io.BytesIO(), io.StringIO()
    with warnings.catch_warnings():
        # A label in a script that the font lacks is drawn as boxes; the numbers still stand.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        drawing.figure.savefig(png, format="png")
        drawing.figure.set_layout_engine("none")  # parts stay where they now are; saves time
        drawing.figure.savefig(
            svg, format="svg", metadata={"Date": None, "Creator": None, "Format": None}
        )
    (folder / f"{stem}.png").write_bytes(png.getvalue())
    write_atomically(folder / f"{stem}.svg", svg.getvalue())
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(drawing.header)
    writer.writerows([_plain(value) for value in row] for row in drawing.rows)
    write_atomically(folder / f"{stem}.csv", table.getvalue())
    return svg.getvalue()


def _plain(value: object) -> object:
    """Floats with 6 digits: enough for any score, and free of binary noise."""
    return f"{value:.6g}" if isinstance(value, float) else value

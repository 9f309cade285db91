"""Praat TextGrids, long and short form, as the Montreal Forced Aligner writes them."""

import re
from pathlib import Path
from typing import NamedTuple

from mmer_jax.errors import UserError

LARGEST = 2**24  # bytes
_TOKEN = re.compile(r'"((?:[^"]|"")*)"|(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)|(<\w+>)')
_INDEX = re.compile(r"\[\d*\]")  # of the long form: "intervals [3]:"


class Interval(NamedTuple):
    """A labelled stretch of time, seconds."""

    start: float
    end: float
    label: str


class TextGrid(NamedTuple):
    """Tiers of intervals; point tiers are left out."""

    seconds: float
    tiers: dict[str, tuple[Interval, ...]]

    def tier(self, name: str, source: str) -> tuple[Interval, ...]:
        """The tier `name`, or the only one called "SPEAKER - name" as MFA does."""
        found = [key for key in self.tiers if key == name or key.endswith(f" - {name}")]
        if len(found) != 1:
            raise UserError(
                f"{source} has {len(found)} tiers '{name}', expected one; its tiers are: "
                f"{', '.join(self.tiers) or 'none'}"
            )
        return self.tiers[found[0]]


def read_textgrid(path: Path) -> TextGrid:
    """The interval tiers of a TextGrid.

    Raises:
      UserError: the file is none, is cut short, or has intervals that do not follow one another.
    """
    tokens = iter(_tokens(path))
    try:
        if (next(tokens), next(tokens)) != ("ooTextFile", "TextGrid"):
            raise ValueError("its head is not of a TextGrid")
        float(next(tokens))
        seconds = float(next(tokens))
        next(tokens)  # <exists>
        tiers = {}
        for _ in range(int(next(tokens))):
            kind, name = next(tokens), next(tokens)
            next(tokens), next(tokens)  # its own start and end
            count = int(next(tokens))
            if kind == "IntervalTier":
                tiers[name] = tuple([_interval(tokens) for _ in range(count)])
            else:
                for _ in range(2 * count):
                    next(tokens)
    except StopIteration:
        raise UserError(f"{path} is no whole TextGrid: it ends too early") from None
    except ValueError as error:
        raise UserError(f"{path} is no TextGrid: {error}") from None
    for name, intervals in tiers.items():
        _check_order(intervals, seconds, f"{path}, tier '{name}'")
    return TextGrid(seconds, tiers)


def write_textgrid(path: Path, grid: TextGrid) -> None:
    """Write the long form."""
    lines = [
        'File type = "ooTextFile"\nObject class = "TextGrid"\n',
        f"xmin = 0\nxmax = {grid.seconds:.6f}\ntiers? <exists>\nsize = {len(grid.tiers)}\nitem []:",
    ]
    for number, (name, intervals) in enumerate(grid.tiers.items(), start=1):
        lines.append(
            f'    item [{number}]:\n        class = "IntervalTier"\n        name = "{name}"\n'
            f"        xmin = 0\n        xmax = {grid.seconds:.6f}\n"
            f"        intervals: size = {len(intervals)}"
        )
        for place, (start, end, label) in enumerate(intervals, start=1):
            quoted = label.replace('"', '""')
            lines.append(
                f"        intervals [{place}]:\n            xmin = {start:.6f}\n"
                f'            xmax = {end:.6f}\n            text = "{quoted}"'
            )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _tokens(path: Path) -> list[str]:
    """Strings, numbers and flags in their order: what both forms have in common."""
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path} is larger than any TextGrid of an utterance")
        data = path.read_bytes()
        utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a TextGrid: {error}") from None
    found = []
    for match in _TOKEN.finditer(_without_indices(text)):
        string, number, flag = match.groups()
        found.append(string.replace('""', '"') if string is not None else number or flag)
    return found


def _without_indices(text: str) -> str:
    """The text without "[3]", which only the long form has; strings are left alone."""
    parts = re.split(r'("(?:[^"]|"")*")', text)
    return "".join(p if p.startswith('"') else _INDEX.sub("", p) for p in parts)


def _interval(tokens) -> Interval:
    start, end, label = next(tokens), next(tokens), next(tokens)
    return Interval(float(start), float(end), label.strip())


def _check_order(intervals: tuple[Interval, ...], seconds: float, source: str) -> None:
    before = 0.0
    for start, end, label in intervals:
        if start < before - 1e-4 or end <= start or end > seconds + 1e-4:
            raise UserError(
                f"{source}: interval '{label}' from {start} to {end} s; expected intervals that "
                f"follow one another up to {seconds} s"
            )
        before = end

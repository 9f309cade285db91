"""The report as it grows: Markdown with its figures, written as report.md and report.html."""

import re
from collections.abc import Mapping
from pathlib import Path

from mmer_jax.errors import UserError
from mmer_jax.records import write_atomically
from mmer_jax.report.figures.drawing import Drawing, save
from mmer_jax.report.page import html_page
from mmer_jax.report.tables import Table

FIGURES = "figures"


class Document:
    """Headings, paragraphs, tables and figures in the order in which they are added."""

    def __init__(self, folder: Path):
        """Raises UserError where `folder` cannot be made."""
        self.folder = folder
        self._title = ""
        self._parts: list[str] = []
        self._svgs: dict[str, str] = {}  # as report.md links it -> the SVG's text
        try:
            (folder / FIGURES).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"report folder {folder} cannot be made ({error}); choose another --out"
            ) from None

    def heading(self, level: int, text: str) -> None:
        self._title = self._title or text
        self._parts.append(f"{'#' * level} {escape(text)}")

    def paragraph(self, markdown: str) -> None:
        """Markdown; names in it must be escaped."""
        if markdown:
            self._parts.append(markdown)

    def bullets(self, facts: Mapping[str, str]) -> None:
        if facts:
            self._parts.append(
                "\n".join(f"- {escape(name)}: {escape(text)}" for name, text in facts.items())
            )

    def table(self, table: Table) -> None:
        self._parts.append(table_markdown(table))

    def figure(self, stem: str, drawing: Drawing, caption: str) -> None:
        """Write the figure's files and show it; `caption` is Markdown."""
        stem = self._free(stem)
        svg = save(drawing, self.folder / FIGURES, stem)
        link = f"{FIGURES}/{stem}.png"
        self._svgs[link] = svg
        self._parts.append(f"![{stem}]({link})\\\n**Figure {len(self._svgs)}.** {caption}")

    def write(self) -> Path:
        """Write report.md and report.html; returns the former's path."""
        markdown = "\n\n".join(self._parts) + "\n"
        path = self.folder / "report.md"
        write_atomically(path, markdown)
        page = html_page(markdown, title=self._title, svgs=self._svgs)
        write_atomically(self.folder / "report.html", page)
        return path

    def _free(self, stem: str) -> str:
        """A file name of plain letters that no figure before has."""
        plain = re.sub(r"[^a-z0-9_.]+", "-", stem.lower()).strip("-.") or "figure"
        name, number = plain, 1
        while f"{FIGURES}/{name}.png" in self._svgs:
            number += 1
            name = f"{plain}-{number}"
        return name


def escape(text: str) -> str:
    """Text that Markdown shows as it is, also in a table's cell."""
    text = re.sub(r"([\\`*<>\[\]|&~])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # inside a word it means nothing


def table_markdown(table: Table) -> str:
    """A Markdown table: names to the left, numbers to the right."""
    rule = ["---" if j < table.names else "---:" for j in range(len(table.header))]
    lines = ["| " + " | ".join(map(escape, table.header)) + " |", "|" + "|".join(rule) + "|"]
    for i, row in enumerate(table.rows):
        cells = [
            f"**{escape(cell)}**" if cell and (i, j) in table.best else escape(cell)
            for j, cell in enumerate(row)
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)

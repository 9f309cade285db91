"""The scores of a run for a terminal."""

from collections.abc import Sequence

from rich.table import Table

from mmer_jax.report import tables
from mmer_jax.report.merge import trials_text
from mmer_jax.report.scores import Condition, collect
from mmer_jax.report.tasks import overview
from mmer_jax.results import Result

# Protocols, with a line between them.
SECTIONS = (
    ("full", "pattern"),
    ("average",),
    ("rate",),
    ("dialogue_rate",),
    ("imbalanced",),
    ("noise",),
)
WITHOUT_PROTOCOL = ("full", "pattern", "average")  # in the names of their rows


def terminal_table(results: Sequence[Result]) -> Table:
    """Mean ± std per available modalities, the averages over patterns, then the other protocols.

    A rate's row is named by the nominal rate with the effective one in brackets.
    """
    scores = collect(overview(results))
    methods = {results[0].method: scores}
    sections = [tables.condition_rows(methods, *protocols) for protocols in SECTIONS]
    rows = [condition for section in sections for condition in section]
    names = [[_name(methods, condition)] for condition in rows]
    content = tables.score_tables(methods, rows, ["available"], names)[0]
    table = Table(
        title=f"{results[0].method} on {results[0].dataset}: test scores, {trials_text(scores)}",
        title_justify="left",
    )
    for j, name in enumerate(content.header):
        head = name.replace("/", "\n")  # a task's name above the metric's: lines are short
        table.add_column(head, justify="left" if j == 0 else "right", no_wrap=True)
    last = [section[-1] for section in sections if section]
    for condition, row in zip(rows, content.rows, strict=True):
        table.add_row(*row, end_section=condition in last)
    return table


def _name(methods: tables.Methods, condition: Condition) -> str:
    protocol, name = condition
    if protocol in WITHOUT_PROTOCOL:
        return name
    effective = tables.effective_text(methods, condition)
    title = f"{protocol} {name}".replace("_", " ")
    return f"{title} ({effective})" if effective else title

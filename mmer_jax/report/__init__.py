"""The report: results of one or several runs as tables, tests and figures.

results.csv ─ scores ─┬─ tables, significance, figures ─ document ─ report.md, report.html
(of every run)        └─ terminal_table
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmer_jax.errors import UserError
from mmer_jax.report.document import Document
from mmer_jax.report.figures.drawing import look
from mmer_jax.report.merge import group_runs, plural
from mmer_jax.report.runs import load_run
from mmer_jax.report.sections import GroupSections
from mmer_jax.report.terminal import terminal_table

__all__ = ["terminal_table", "write_report"]


def write_report(
    out: Path,
    workdirs: Sequence[Path],
    *,
    facts: Mapping[str, str] | None = None,
    own: bool = False,
) -> Path:
    """Write report.md, report.html (self-contained) and figures/ into `out`.

    Runs on the same data (dataset, label, modalities, splits) stand side by side; other runs get a
    part of the report of their own. So do the tasks of a run that has several.

    Args:
      out: made where it does not exist; an earlier report in it is replaced.
      workdirs: of the runs; one given twice counts once.
      facts: what else to tell, name -> text.
      own: whether this process holds the workdirs' locks itself, as a run at its end does.
    Returns:
      The path of report.md.
    Raises:
      UserError: a workdir cannot be read or is still running, or runs on the same data differ in
        their folds or masks.
    """
    if not workdirs:
        raise UserError("no workdir given: the report needs at least one")
    unique = {Path(workdir).resolve(): Path(workdir) for workdir in workdirs}
    groups = group_runs([load_run(workdir, own=own) for workdir in unique.values()])
    document = Document(Path(out))
    with look():
        if len(groups) == 1:
            document.heading(1, groups[0].title())
            GroupSections(document, groups[0], level=2, prefix="").write()
        else:
            one = groups[-1].title() if len(unique) == 1 else ""  # of all its tasks
            document.heading(1, one or f"Test scores of {plural(len(unique), 'run')}")
            for number, group in enumerate(groups, start=1):
                document.heading(2, group.title())
                prefix = f"{number}-{group.dataset}-{group.label}-"
                GroupSections(document, group, level=3, prefix=prefix).write()
    document.heading(2, "About this report")
    document.bullets(facts or {})
    document.paragraph("Every figure is in `figures/` as PNG, SVG and CSV of its numbers.")
    return document.write()

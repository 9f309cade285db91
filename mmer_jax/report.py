"""results.csv as a table: mean ± standard deviation over folds and seeds, per condition."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from mmer_jax import metrics
from mmer_jax.evaluate import Result
from mmer_jax.records import write_atomically

POOLED = "missing, pooled"
COLUMN_MEAN = "missing, mean"
NOTES = (
    "Scores in percent (MAE and correlation as they are). ± is the standard deviation over folds "
    f"and seeds. '{POOLED}': predictions under all missing "
    "patterns taken together, then scored, per fold and seed (the average that MMIN reports). "
    f"'{COLUMN_MEAN}': plain mean of the missing patterns' scores."
)

Scores = dict[str, dict[str, list[float]]]  # condition -> metric -> one value per trial


def collect(results: Sequence[Result]) -> Scores:
    """Scores per condition in the order of results.csv, then the two averages over patterns."""
    scores: Scores = defaultdict(lambda: defaultdict(list))
    confusion: dict[tuple[int, int], dict[tuple[str, str], int]] = defaultdict(
        lambda: defaultdict(int)
    )
    missing: dict[tuple[int, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for r in results:
        trial = (r.fold, r.seed)
        if r.metric.startswith("confusion:"):
            if r.protocol == "pattern":
                truth, predicted = r.metric.removeprefix("confusion:").split(">")
                confusion[trial][truth, predicted] += int(r.value)
            continue
        scores[r.condition][r.metric].append(float(r.value))
        if r.protocol == "pattern":
            missing[trial][r.metric].append(float(r.value))
    for counts in confusion.values():
        for metric, value in metrics.classification_scores(_matrix(counts)).items():
            scores[POOLED][metric].append(value)
    for by_metric in missing.values():
        for metric, values in by_metric.items():
            scores[COLUMN_MEAN][metric].append(float(np.mean(values)))
    return scores


def _matrix(counts: dict[tuple[str, str], int]) -> np.ndarray:
    classes = list(dict.fromkeys(truth for truth, _ in counts))
    return np.array([[counts[t, p] for p in classes] for t in classes])


def _cells(scores: Scores) -> tuple[list[str], list[list[str]]]:
    columns = list(next(iter(scores.values())))
    rows = []
    for condition, by_metric in scores.items():
        cells = [condition]
        for metric in columns:
            values = by_metric.get(metric)
            cells.append(_cell(metric, values) if values else "")
        rows.append(cells)
    return ["available", *columns], rows


def _cell(metric: str, values: list[float]) -> str:
    """Percent, but for errors and correlations, which are no shares."""
    if metric in ("MAE", "pearson"):
        return f"{np.mean(values):.3f} ± {np.std(values):.3f}"
    return f"{100 * np.mean(values):.1f} ± {100 * np.std(values):.1f}"


def _title(results: Sequence[Result]) -> str:
    trials = {(r.fold, r.seed) for r in results}
    folds, seeds = {f for f, _ in trials}, {s for _, s in trials}
    return (
        f"{results[0].method} on {results[0].dataset}: test scores, {len(folds)} folds × "
        f"{len(seeds)} seeds"
    )


def terminal_table(results: Sequence[Result]) -> Table:
    """The table for a terminal."""
    header, rows = _cells(collect(results))
    table = Table(title=_title(results), title_justify="left")
    for name in header:
        table.add_column(name, justify="left" if name == header[0] else "right", no_wrap=True)
    for row in rows:
        if row[0] == POOLED:
            table.add_section()
        table.add_row(*row)
    return table


def write_report(folder: Path, workdirs, *, facts: dict[str, str], own=False) -> Path:
    """Write report.md; returns its path."""
    from mmer_jax.evaluate import read_results

    results = read_results(workdirs[0] / "results.csv")
    header, rows = _cells(collect(results))
    lines = [f"# {_title(results)}", ""]
    lines += ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    lines += ["", NOTES, ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.md"
    write_atomically(path, "\n".join(lines) + "\n")
    return path

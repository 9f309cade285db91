"""Runs with several tasks: a view of each task, which stands beside runs of that task alone, and
one of all together."""

import dataclasses
from collections.abc import Sequence

from mmer_jax.metrics import JOINT
from mmer_jax.results import Result

MARK = "/weighted_F1"  # every task has it, and no class name stands in it
SHARED = ("effective_rate",)  # of every task alike


def task_names(results: Sequence[Result]) -> list[str]:
    """Of a run with several tasks, in order; empty for one task."""
    found = (r.metric.removesuffix(MARK) for r in results if r.metric.endswith(MARK))
    return list(dict.fromkeys(found))


def of_task(results: Sequence[Result], name: str) -> list[Result]:
    """The lines of one task, as those of a run that has no other."""
    prefix = f"{name}/"
    return [
        dataclasses.replace(r, metric=r.metric.removeprefix(prefix))
        for r in results
        if r.metric.startswith(prefix) or r.metric in SHARED
    ]


def together(results: Sequence[Result]) -> list[Result]:
    """The tasks' weighted F1, their joint score, and the lines that are of no single task."""
    names = task_names(results)
    prefixes, kept = tuple(f"{name}/" for name in names), {f"{name}{MARK}" for name in names}
    return [r for r in results if not r.metric.startswith(prefixes) or r.metric in kept]


def overview(results: Sequence[Result]) -> list[Result]:
    """The lines that a terminal has room for: of several tasks each one's UA and weighted F1."""
    names = task_names(results)
    if not names:
        return list(results)
    shown = {f"{name}/{metric}" for name in names for metric in ("UA", "weighted_F1")}
    return [r for r in results if r.metric in {*shown, JOINT, *SHARED}]

"""Which runs may stand side by side: same data, same splits, same masks."""

import dataclasses
import itertools
from collections.abc import Sequence

from mmer_jax.errors import UserError, shorten
from mmer_jax.report.runs import Run, by_task
from mmer_jax.report.scores import Scores

KFOLD = ("data.kfold", "data.kfold_by", "data.kfold_seed")  # what decides the rows of a fold


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs on the same data; a section of the report.

    Attributes:
      runs: label (the method, made distinguishable) -> run.
    """

    dataset: str
    label: str
    modalities: tuple[str, ...]
    splits: str
    runs: dict[str, Run]

    @property
    def classes(self) -> list[str]:
        return next(iter(self.runs.values())).classes

    @property
    def outputs(self) -> str:
        return next(iter(self.runs.values())).outputs

    def title(self) -> str:
        """'ifmmin, mmin on iemocap, emotion4: test scores, 10 folds × 2 seeds'."""
        sizes = {name: trials_text(run.scores) for name, run in self.runs.items()}
        if len(set(sizes.values())) == 1:
            methods, size = ", ".join(sizes), ", " + next(iter(sizes.values()))
        else:
            methods, size = ", ".join(f"{m} ({s})" for m, s in sizes.items()), ""
        return f"{methods} on {self.dataset}, {self.label}: test scores{size}"


def trials_text(scores: Scores) -> str:
    """'5 folds × 2 seeds', or '9 trials of 5 folds × 2 seeds' where some have no scores."""
    trials = scores.trials()
    folds, seeds = ({trial[i] for trial in trials} for i in (0, 1))
    text = f"{plural(len(folds), 'fold')} × {plural(len(seeds), 'seed')}"
    whole = len(trials) == len(folds) * len(seeds)
    return text if whole else f"{plural(len(trials), 'trial')} of {text}"


def plural(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Runs by (dataset, label, modalities, splits), in the order given, task by task.

    Raises:
      UserError: two runs of a group differ in their data, folds, masks or conditions.
    """
    groups: dict[tuple, list[Run]] = {}
    for run in itertools.chain.from_iterable(map(by_task, runs)):
        key = (
            run.corpus["name"],
            run.label,
            tuple(run.corpus["modalities"]),
            run.config["data.splits"],
        )
        groups.setdefault(key, []).append(run)
    for members in groups.values():
        # Each against each: a protocol that the first lacks may still differ between two others.
        for i, one in enumerate(members):
            for other in members[i + 1 :]:
                _check_comparable(one, other)
    return [
        Group(dataset, label, modalities, splits, _labelled(members))
        for (dataset, label, modalities, splits), members in groups.items()
    ]


def _labelled(runs: list[Run]) -> dict[str, Run]:
    methods = [run.method for run in runs]
    folders = [run.workdir.resolve().name for run in runs]
    labels = []
    for run, method, folder in zip(runs, methods, folders, strict=True):
        if methods.count(method) == 1:
            labels.append(method)
        elif list(zip(methods, folders, strict=True)).count((method, folder)) == 1:
            labels.append(f"{method} ({folder})")
        else:
            labels.append(f"{method} ({run.workdir.resolve()})")
    return dict(zip(labels, runs, strict=True))


def _check_comparable(one: Run, other: Run) -> None:
    difference = _data(one, other) or _folds(one, other) or _protocols(one, other)
    if difference:
        raise UserError(
            f"{one.workdir} and {other.workdir} cannot be compared: {difference}. Train them on "
            "the same data with the same settings of data.* and eval.*, or report them apart."
        )


def _data(one: Run, other: Run) -> str | None:
    for name, a, b in (
        ("fingerprint", one.corpus["fingerprint"], other.corpus["fingerprint"]),
        ("classes", one.classes or one.tasks, other.classes or other.tasks),
    ):
        if a != b:
            return f"corpus {name} {a!r} in the first, {b!r} in the second"
    return None


def _folds(one: Run, other: Run) -> str | None:
    if one.config["data.splits"] == "kfold":
        for key in KFOLD:
            a, b = one.config.get(key), other.config.get(key)
            if a != b:
                return f"{key} {a!r} in the first, {b!r} in the second"
    a, b = _test_sizes(one), _test_sizes(other)
    for fold in sorted(a.keys() & b.keys()):
        if a[fold] != b[fold]:
            return (
                f"fold {fold} has {a[fold]} test utterances in the first, {b[fold]} in the second"
            )
    return None


def _test_sizes(run: Run) -> dict[int, int]:
    return {r.fold: r.n for r in run.results if r.protocol in ("full", "pattern")}


def _protocols(one: Run, other: Run) -> str | None:
    for protocol in sorted(one.masks.keys() & other.masks.keys()):
        a, b = one.masks[protocol], other.masks[protocol]
        if a != b:
            return f"masks of protocol {protocol} have digest {a} in the first, {b} in the second"
    for protocol in sorted({p for p, _ in one.scores.values} & {p for p, _ in other.scores.values}):
        a, b = ({c for _, c in run.scores.conditions(protocol)} for run in (one, other))
        if a != b:
            only = [f"{c} only in the first" for c in sorted(a - b)]
            only += [f"{c} only in the second" for c in sorted(b - a)]
            return f"conditions of protocol {protocol} differ ({shorten(only)})"
    return None

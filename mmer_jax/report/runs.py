"""A workdir as the report reads it, and the errors of a workdir that it cannot read."""

import contextlib
import dataclasses
import fcntl
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mmer_jax import pairs, study
from mmer_jax.data.arrays import BadArray, read_npz
from mmer_jax.errors import UserError
from mmer_jax.integrity import Damaged, digest_of, read_signed
from mmer_jax.metrics import JOINT
from mmer_jax.pairs import Pairs
from mmer_jax.records import LOCK
from mmer_jax.report import neighbours
from mmer_jax.report.neighbours import Study
from mmer_jax.report.scores import Scores, collect
from mmer_jax.report.sweep import SweepPoint, read_sweep
from mmer_jax.report.tasks import of_task, together
from mmer_jax.results import AGAIN, Result, read_results

# Protocols whose conditions end in a number, and how they are written.
NUMBERED = {"rate": "a rate", "dialogue_rate": "a rate", "noise": "type:level"}
LOGGED = ("trial", "fold", "seed", "stage", "epoch", "loss", "validation_score")


@dataclasses.dataclass(frozen=True)
class Invariants:
    """Invariant features of test utterances, per modality; finite and labelled ones only.

    Attributes:
      features: [n, M, h].
      labels: [n] indices into `classes`, or real values.
      modalities: M names.
      classes: empty for real-valued labels.
    """

    features: np.ndarray
    labels: np.ndarray
    modalities: list[str]
    classes: list[str]


@dataclasses.dataclass(frozen=True)
class Run:
    """What a workdir holds of a finished (or interrupted) run.

    A run with several tasks has their joint score; `by_task` leads to each one's.

    Attributes:
      tasks: label column -> classes; none where it is real-valued.
      epochs: lines of metrics.jsonl, of the chosen point alone after a sweep.
      sweep: the points of sweep.csv; empty without a sweep.
      pairs: of two tasks which classes go together.
      study: hardness and neighbours of test utterances, of methods that have either.
      diverged: a sentence for each trial that diverged in a stage.
    """

    workdir: Path
    config: dict
    corpus: dict
    tasks: dict[str, list[str]]
    masks: dict
    results: list[Result]
    scores: Scores
    epochs: list[dict]
    sweep: list[SweepPoint]
    invariants: Invariants | None
    pairs: Pairs | None
    study: Study | None
    diverged: list[str]

    @property
    def method(self) -> str:
        return self.results[0].method

    @property
    def label(self) -> str:
        return " & ".join(self.tasks)

    @property
    def classes(self) -> list[str]:
        """Of the only task."""
        return next(iter(self.tasks.values())) if len(self.tasks) == 1 else []

    @property
    def outputs(self) -> str:
        """What is predicted, for the reader."""
        if len(self.tasks) == 1:
            return ", ".join(self.classes) or "real-valued"
        return "; ".join(f"{name}: {', '.join(found)}" for name, found in self.tasks.items())

    @property
    def selected_by(self) -> str:
        """The validation score that chooses epochs (mmer_jax.metrics.score)."""
        if len(self.tasks) > 1:
            select = self.config.get("train.select")
            return f"{select}/UA" if select else JOINT
        return "UA" if self.classes else "−MAE"


def load_run(workdir: Path, *, own: bool = False) -> Run:
    """Read a workdir.

    Args:
      workdir: of `python -m mmer_jax.main`.
      own: whether this process is the run itself; it then holds the lock.
    Raises:
      UserError: no such workdir, nothing in it yet, a run still writes it, or a damaged file.
    """
    if not workdir.is_dir():
        raise UserError(f"workdir {workdir} does not exist; give a --workdir of mmer_jax.main")
    with contextlib.nullcontext() if own else _not_running(workdir):
        config = _read_config(workdir / "config.json")
        results = _read_results(workdir / "results.csv")
        sweep = read_sweep(workdir / "sweep.csv")
        evaluated = _read_evaluated(workdir / "evaluated.json")
        _check_digest(workdir / "results.csv", evaluated["results"])
        tasks = _tasks(config, workdir / "config.json")
        return Run(
            workdir=workdir,
            config=config["config"],
            corpus=config["corpus"],
            tasks=tasks,
            masks=evaluated["masks"],
            results=results,
            scores=collect(together(results) if len(tasks) > 1 else results),
            epochs=_read_epochs(workdir / "metrics.jsonl", set(evaluated["trials"])),
            sweep=sweep,
            invariants=_read_invariants(workdir / "invariants.npz"),
            pairs=pairs.read(workdir / pairs.FILE) if len(tasks) == 2 else None,
            study=neighbours.read(workdir / study.FILE, classes=bool(next(iter(tasks.values())))),
            diverged=evaluated["diverged"],
        )


def by_task(run: Run) -> list[Run]:
    """Of several tasks one run for each, with its scores alone, then the run itself."""
    if len(run.tasks) == 1:
        return [run]
    views: list[Run] = []
    for name, classes in run.tasks.items():
        mine = of_task(run.results, name)
        views.append(
            dataclasses.replace(
                run,
                tasks={name: classes},
                results=mine,
                scores=collect(mine),
                epochs=[],
                sweep=[],
                invariants=run.invariants if not views else None,
                pairs=None,
                study=run.study if not views else None,
            )
        )
    joint = dataclasses.replace(run, results=together(run.results), invariants=None, study=None)
    return [*views, joint]


def _tasks(found: dict, path: Path) -> dict[str, list[str]]:
    """Label column -> classes, of config.json."""
    if "tasks" in found["corpus"]:
        return {name: list(classes) for name, classes in found["corpus"]["tasks"].items()}
    if "classes" not in found["corpus"]:
        raise UserError(f"{path} lacks classes; it was not written by mmer_jax.main")
    columns = found["config"].get("data.labels") or [found["config"]["data.label"]]
    return {columns[0]: list(found["corpus"]["classes"])}


@contextlib.contextmanager
def _not_running(workdir: Path) -> Iterator[None]:
    """Hold a shared lock while reading; a run holds the exclusive one."""
    lock = workdir / LOCK
    if not lock.exists():
        yield
        return
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"workdir {workdir} is still running; wait for it to end or stop it"
            ) from None
        yield


def _read_config(path: Path) -> dict:
    if not path.exists():
        raise UserError(
            f"workdir {path.parent} has no config.json: it is no workdir of mmer_jax. Give the "
            "--workdir of a run of mmer_jax.main."
        )
    try:
        found = read_signed(path)
        missing = [k for k in ("method", "data.label", "data.splits") if k not in found["config"]]
        missing += [k for k in ("name", "fingerprint", "modalities") if k not in found["corpus"]]
    except (Damaged, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not a config.json of mmer_jax ({type(error).__name__}: {error}); give the "
            "--workdir of a run of mmer_jax.main"
        ) from None
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; it was not written by mmer_jax.main")
    return found


def _read_results(path: Path) -> list[Result]:
    if not path.exists():
        raise UserError(
            f"workdir {path.parent} has no results.csv: nothing is trained there yet. Run "
            "mmer_jax.main on it to the end, then the report."
        )
    results = read_results(path)
    if not results:
        raise UserError(f"{path} has no lines: no trial has been scored yet")
    for number, result in enumerate(results, start=2):
        _check_result(path, number, result)
    methods = sorted({result.method for result in results})
    if len(methods) > 1:
        raise UserError(
            f"{path} has lines of several methods ({', '.join(methods)}); a workdir holds one. "
            "Give each run a --workdir of its own."
        )
    return results


def _check_result(path: Path, number: int, result: Result) -> None:
    place = f"{path}, line {number}"
    if not _is_number(result.value):
        raise UserError(
            f"{place}: {result.metric} is {result.value!r}, expected a finite number. {AGAIN}"
        )
    if result.metric.startswith("confusion:") and ">" not in result.metric:
        raise UserError(
            f"{place}: metric {result.metric!r}, expected confusion:truth>predicted. {AGAIN}"
        )
    if result.protocol in NUMBERED and not _is_number(result.condition.rpartition(":")[2]):
        raise UserError(
            f"{place}: condition {result.condition!r} of protocol {result.protocol}, expected "
            f"{NUMBERED[result.protocol]}. {AGAIN}"
        )


def _check_digest(path: Path, expected: str | None) -> None:
    if expected is not None and digest_of(path.read_bytes()) != expected:
        raise UserError(f"{path} is not as it was written: it is damaged or was edited. {AGAIN}")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except (TypeError, ValueError):
        return False


def _read_evaluated(path: Path) -> dict:
    """What results.csv holds: the trials' keys, digests of masks and of itself, divergences."""
    try:
        found = read_signed(path)
        return {
            "trials": list(found["trials"]),
            "masks": dict(found["masks"]),
            "results": found.get("results"),  # older ones have none
            "diverged": list(found.get("diverged", [])),
        }
    except (OSError, Damaged, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}: {error}): scoring was interrupted. "
            "Run mmer_jax.main on the workdir again: it scores without training."
        ) from None


def _read_epochs(path: Path, trials: set[str]) -> list[dict]:
    """Lines of metrics.jsonl about `trials`; the last one may have been cut short by a crash."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            lacks = [key for key in LOGGED if key not in record]
        except (ValueError, TypeError):
            if number == len(lines):
                break
            record, lacks = {}, ["JSON"]
        if lacks:
            raise UserError(
                f"{path}, line {number}: no {', '.join(lacks)} in {line[:80]!r}. It is damaged; "
                "delete that line and run the report again."
            )
        if record["trial"] in trials:
            found.append(record)
    return found


def _read_invariants(path: Path) -> Invariants | None:
    if not path.exists():
        return None
    try:
        file = read_npz(path)
        found = Invariants(
            features=file["features"],
            labels=file["labels"],
            modalities=[str(name) for name in file["modalities"]],
            classes=[str(name) for name in file["classes"]],
        )
        n, n_modalities, _ = found.features.shape
    except (BadArray, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error}); delete it, and the report goes "
            "without the projection"
        ) from None
    if found.labels.shape != (n,) or len(found.modalities) != n_modalities:
        raise UserError(
            f"{path}: features {found.features.shape} do not fit labels {found.labels.shape} and "
            f"{len(found.modalities)} modalities; expected [n, M, h], [n] and M names"
        )
    known = np.isfinite(found.labels) & np.isfinite(found.features).all(axis=(1, 2))
    if found.classes:
        known &= (found.labels >= 0) & (found.labels < len(found.classes))
    if not known.any():
        return None
    return dataclasses.replace(found, features=found.features[known], labels=found.labels[known])

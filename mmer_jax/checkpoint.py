"""Checkpoints of a group of trials (Orbax): where training stands, and what it ended with.

    checkpoints/running/<group>/<epochs done>/  training state, resumable; the last two are kept
    checkpoints/running/<group>.json            the group's trials, in order
    checkpoints/final/<group>/                  best parameters of every stage, [T, ...]
    checkpoints/final/<group>.json              its trials with their validation scores

A group that has a final .json is trained; its running checkpoints are deleted. Arrays are stored
for the real trials only, so that a run resumes on any number of devices.
"""

import contextlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from mmer_jax import mesh as mesh_lib
from mmer_jax.distributed import on_first
from mmer_jax.errors import UserError
from mmer_jax.records import write_atomically

KEEP = 2


class Finished(NamedTuple):
    """A trained trial: where its parameters are, and what selects it."""

    group: str
    position: int  # on the trial axis
    validation_score: float
    best_epoch: int  # 0-based, of the last stage


def finished_trials(workdir: Path) -> dict[str, Finished]:
    """Trial key -> what is stored of it, of every trained group."""
    found = {}
    for path in sorted(_root(workdir, "final").glob("*.json")):
        for index, entry in enumerate(_read(path)):
            found[entry["trial"]] = Finished(
                path.stem, index, entry["validation_score"], entry["best_epoch"]
            )
    return found


def begun_groups(workdir: Path) -> list[list[str]]:
    """The trial keys of each group that has a checkpoint to go on from."""
    found = []
    for path in sorted(_root(workdir, "running").glob("*.json")):
        with contextlib.suppress(FileNotFoundError):  # another worker has just finished it
            found.append(_read(path))
    return found


def load_final(workdir: Path, group: str) -> dict[str, Any]:
    """{stage: params [T, ...]} of a trained group."""
    return ocp.load(_root(workdir, "final") / group)


class GroupCheckpoints:
    """The checkpoints of one group of trials in a workdir.

    Args:
      workdir: of the run.
      group: its name.
      trials: their keys, in order.
    """

    def __init__(self, workdir: Path, group: str, trials: Sequence[str]):
        self._trials = list(trials)
        self._final = _root(workdir, "final") / group
        self._running = _root(workdir, "running") / group
        on_first(lambda: self._running.mkdir(parents=True, exist_ok=True))
        self._checkpointer = ocp.training.Checkpointer(
            self._running,
            preservation_policy=ocp.training.preservation_policies.LatestN(KEEP),
            cleanup_tmp_directories=True,
        )

    def latest(self) -> int:
        """Epochs done at the last complete checkpoint; 0 if there is none."""
        latest = self._checkpointer.latest
        return on_first(lambda: latest.step if latest else 0)

    def save(self, epochs_done: int, tree: Any) -> None:
        """Store the real trials of every leaf [T, ...]; complete when this returns."""
        if epochs_done == self.latest():
            return
        stored = take_trials(tree, len(self._trials))

        def begin():
            _require_space(self._running, stored)
            write_atomically(self._running.with_suffix(".json"), json.dumps(self._trials))

        on_first(begin)
        self._checkpointer.save(epochs_done, stored, force=True)

    def load(self, epochs_done: int, like: Any) -> Any:
        """The stored tree, its trials repeated up to the leading axis of `like`."""
        count = len(self._trials)
        abstract = jax.tree.map(lambda x: np.empty((count, *x.shape[1:]), x.dtype), like)
        tree = self._checkpointer.load(epochs_done, abstract)
        return jax.tree.map(lambda x, old: pad_trials(x, old.shape[0]), tree, like)

    def save_final(
        self, stages: dict[str, Any], validation_score: np.ndarray, best_epoch: np.ndarray
    ) -> None:
        """The best parameters of every stage; the group is trained."""
        stored = take_trials(stages, len(self._trials))

        def begin():
            self._final.parent.mkdir(parents=True, exist_ok=True)
            _require_space(self._final.parent, stored)

        on_first(begin)
        ocp.save(self._final, stored, overwrite=True)
        entries = [
            {"trial": trial, "validation_score": float(score), "best_epoch": int(epoch)}
            for trial, score, epoch in zip(self._trials, validation_score, best_epoch, strict=True)
        ]

        def finish():
            write_atomically(self._final.with_suffix(".json"), json.dumps(entries, indent=1))
            self._running.with_suffix(".json").unlink(missing_ok=True)
            shutil.rmtree(self._running, ignore_errors=True)

        on_first(finish)

    def close(self) -> None:
        self._checkpointer.close()


def _root(workdir: Path, kind: str) -> Path:
    return Path(workdir).resolve() / "checkpoints" / kind


def _read(path: Path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path} is damaged ({error}); delete it to train its trials anew"
        ) from None


def take_trials(tree: Any, n_trials: int) -> Any:
    """The first trials of every leaf, on the host."""
    return jax.tree.map(lambda x: mesh_lib.fetch(x)[:n_trials], tree)


def pad_trials(leaf, count: int) -> np.ndarray:
    """[T, ...] -> [count, ...], the last trial repeated."""
    leaf = np.asarray(leaf)
    return np.concatenate([leaf, np.repeat(leaf[-1:], count - len(leaf), axis=0)])


def _require_space(place: Path, tree: Any) -> None:
    """Refuse to begin a checkpoint that the disk cannot hold.

    Asked beforehand, because Orbax writes from threads whose complaints would fill the terminal.
    """
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) + 2**20
    free = shutil.disk_usage(place).free
    if free < needed:
        raise UserError(
            f"disk full: a checkpoint in {place} needs {needed / 2**20:.0f} MiB, "
            f"{free / 2**20:.0f} MiB are free. Earlier checkpoints and results are intact; free "
            "space and run the same command again."
        )

"""Checkpoints of a group of trials (Orbax): where training stands, and what it ended with.

    checkpoints/group000/<epochs done>/   training state, resumable; the last two are kept
    checkpoints/final/group000/           best parameters of every stage, [T, ...]

Arrays are stored for the real trials only, so that a run resumes on any number of devices.
"""

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from mmer_jax.errors import UserError

KEEP = 2


class GroupCheckpoints:
    """The checkpoints of one group of trials in a workdir."""

    def __init__(self, workdir: Path, group: int):
        root = Path(workdir).resolve() / "checkpoints"
        self._final = root / "final" / f"group{group:03d}"
        self._running = root / f"group{group:03d}"
        self._checkpointer = ocp.training.Checkpointer(
            self._running,
            preservation_policy=ocp.training.preservation_policies.LatestN(KEEP),
            cleanup_tmp_directories=True,
        )

    def latest(self) -> int:
        """Epochs done at the last complete checkpoint; 0 if there is none."""
        latest = self._checkpointer.latest
        return latest.step if latest else 0

    def save(self, epochs_done: int, tree: Any, n_trials: int) -> None:
        """Store the first `n_trials` of every leaf [T, ...]; complete when this returns."""
        if epochs_done == self.latest():
            return
        stored = take_trials(tree, n_trials)
        _require_space(self._running, stored)
        self._checkpointer.save(epochs_done, stored, force=True)

    def load(self, epochs_done: int, like: Any, n_trials: int) -> Any:
        """The stored tree, its trials repeated up to the leading axis of `like`."""
        abstract = jax.tree.map(lambda x: np.empty((n_trials, *x.shape[1:]), x.dtype), like)
        tree = self._checkpointer.load(epochs_done, abstract)
        return jax.tree.map(lambda x, old: pad_trials(x, old.shape[0]), tree, like)

    def save_final(self, stages: dict[str, Any], n_trials: int) -> None:
        """The best parameters of every stage; the group is trained."""
        stored = take_trials(stages, n_trials)
        _require_space(self._final.parent.parent, stored)
        ocp.save(self._final, stored, overwrite=True)

    def load_final(self) -> dict[str, Any] | None:
        """{stage: params [T, ...]}, or None if the group has not finished."""
        return ocp.load(self._final) if self._final.exists() else None

    def close(self) -> None:
        self._checkpointer.close()


def take_trials(tree: Any, n_trials: int) -> Any:
    """The first trials of every leaf, on the host."""
    return jax.tree.map(lambda x: np.asarray(x)[:n_trials], tree)


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

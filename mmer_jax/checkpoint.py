"""Checkpoints of a group of trials (Orbax): where training stands, and what it ended with.

    checkpoints/group000/<epochs done>/   training state, resumable; the last two are kept
    checkpoints/final/group000/           best parameters of every stage, [T, ...]

Arrays are stored for the real trials only, so that a run resumes on any number of devices.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from mmer_jax.errors import UserError, is_disk_full

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
        with _disk_full_is_clear(self._running):
            self._checkpointer.save(epochs_done, take_trials(tree, n_trials), force=True)

    def load(self, epochs_done: int, like: Any, n_trials: int) -> Any:
        """The stored tree, its trials repeated up to the leading axis of `like`."""
        abstract = jax.tree.map(lambda x: np.empty((n_trials, *x.shape[1:]), x.dtype), like)
        tree = self._checkpointer.load(epochs_done, abstract)
        return jax.tree.map(lambda x, old: pad_trials(x, old.shape[0]), tree, like)

    def save_final(self, stages: dict[str, Any], n_trials: int) -> None:
        """The best parameters of every stage; the group is trained."""
        with _disk_full_is_clear(self._final):
            ocp.save(self._final, take_trials(stages, n_trials), overwrite=True)

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


class _disk_full_is_clear:
    """Turns a full disk during a checkpoint into a message; earlier checkpoints stay."""

    def __init__(self, place: Path):
        self._place = place

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error is not None and is_disk_full(error):
            raise UserError(
                f"disk full while writing a checkpoint to {self._place}. Earlier checkpoints and "
                "results are intact; free space and run the same command again."
            ) from error

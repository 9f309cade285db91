"""Checkpoints of a group of trials (Orbax): where training stands, and what it ended with.

    checkpoints/running/<group>/<epochs done>/  training state, resumable; the last two are kept
    checkpoints/running/<group>.json            the group's trials, in order
    checkpoints/final/<group>/                  best parameters of every stage, [T, ...]
    checkpoints/final/<group>.json              its trials with their validation scores

Beside the folder of every checkpoint stands a .json of the same name with the size and digest of
each file in it. It is written last: a folder without it was cut off and counts for nothing. What is
read is held against it. A damaged running checkpoint costs the epochs since the one before, or
since the start, and the run goes on by itself: training again gives the same numbers. A damaged
final one is an error, as others than its own run read it.

A group that has a final .json is trained; its running checkpoints are deleted. Arrays are stored
for the real trials only, so that a run resumes on any number of devices.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mmer_jax import array_files
from mmer_jax import mesh as mesh_lib
from mmer_jax.distributed import is_first, on_first
from mmer_jax.divergence import Divergence
from mmer_jax.errors import UserError, is_disk_full, shorten
from mmer_jax.integrity import Damaged, changes, digests, read_signed, write_signed

KEEP = 2
Divergences = Mapping[str, Sequence[Divergence]]  # trial key -> one of each stage that diverged


class Finished(NamedTuple):
    """A trained trial: where its parameters are, and what selects it."""

    group: str
    position: int  # on the trial axis
    validation_score: float
    best_epoch: int  # 0-based, of the last stage
    diverged: tuple[Divergence, ...] = ()

    @property
    def lost(self) -> bool:
        """Whether a stage diverged before any epoch counted: the parameters mean nothing."""
        return any(divergence.lost for divergence in self.diverged)


class Standing(NamedTuple):
    """What a group can go on from."""

    epochs_done: int  # 0: from the start
    diverged: dict[str, list[Divergence]]  # by trial key, until then
    damage: tuple[str, ...]  # of newer checkpoints, which are deleted


def finished_trials(workdir: Path) -> dict[str, Finished]:
    """Trial key -> what is stored of it, of every trained group, lost trials included."""
    return parse_finished(final_entries(workdir))


def parse_finished(stored: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Finished]:
    """`finished_trials` from what `final_entries` says, maybe in another process."""
    found = {}
    for group, entries in stored.items():
        for index, entry in enumerate(entries):
            found[entry["trial"]] = Finished(
                group,
                index,
                entry["validation_score"],
                entry["best_epoch"],
                _divergences(entry.get("diverged", [])),
            )
    return found


def final_entries(workdir: Path) -> dict[str, list[dict[str, Any]]]:
    """Group -> what the .json of each of its trials says."""
    paths = sorted(_root(workdir, "final").glob("*.json"))
    return {path.stem: _read_final(path)["trials"] for path in paths}


def usable_trials(workdir: Path) -> dict[str, Finished]:
    """`finished_trials` without those that are lost."""
    return {key: entry for key, entry in finished_trials(workdir).items() if not entry.lost}


def begun_groups(workdir: Path) -> list[list[str]]:
    """The trial keys of each group that has a checkpoint to go on from."""
    found = []
    for path in sorted(_root(workdir, "running").glob("*.json")):
        try:
            found.append([str(key) for key in read_signed(path)["trials"]])
        except FileNotFoundError:
            continue  # another worker has just finished it
        except (Damaged, KeyError, TypeError) as error:
            raise UserError(
                f"{path} {_why(error)}; delete it and run the same command again: the group's "
                "checkpoints are used where the same trials are asked for"
            ) from None
    return found


def load_final(workdir: Path, group: str) -> dict[str, Any]:
    """{stage: params [T, ...]} of a trained group.

    Raises:
      UserError: it is not as it was written.
    """
    folder = _root(workdir, "final") / group
    remedy = (
        f"delete {_seal(folder)} and {folder} and run the command that made them again: it "
        "trains these trials anew, and no others"
    )
    damage = changes(folder, _read_final(_seal(folder))["files"])
    if damage:
        raise UserError(f"a trained model is damaged: {shorten(damage)}; {remedy}")
    try:
        return array_files.load(folder)
    except Exception as error:  # whatever Orbax makes of a checkpoint older than digests
        raise UserError(f"{folder} cannot be read ({error}); {remedy}") from error


class GroupCheckpoints:
    """The checkpoints of one group of trials in a workdir.

    Every process of a run asks for the same; the first one writes.

    Args:
      workdir: of the run.
      group: its name.
      trials: their keys, in order.
    """

    def __init__(self, workdir: Path, group: str, trials: Sequence[str]):
        self._trials = list(trials)
        self._final = _root(workdir, "final") / group
        self._running = _root(workdir, "running") / group

    def standing(self) -> Standing:
        """The newest checkpoint that is as it was written; deletes newer ones and what is cut off.

        Call it before `save`: what a run that was killed has left would be in the way.
        """
        done, diverged, damage = on_first(self._clean_up)
        found = {trial: list(_divergences(entries)) for trial, entries in diverged.items()}
        return Standing(done, found, tuple(damage))

    def _clean_up(self) -> tuple[int, dict[str, Any], list[str]]:
        """`standing`, in plain values."""
        damage: list[str] = []
        diverged: dict[str, Any] = {}
        steps = self._complete()
        while steps:
            try:
                diverged = self._check(steps[-1])
                break
            except Damaged as error:
                damage.append(str(error))
                self._delete(steps.pop())
        kept = {name for step in steps for name in (f"{step}", f"{step}.json")}
        for path in self._running.glob("*"):
            if path.name not in kept:
                _remove(path)
        return (steps[-1] if steps else 0), diverged, damage

    def save(self, epochs_done: int, tree: Any, diverged: Divergences | None = None) -> None:
        """Store the real trials of every leaf [T, ...]; complete when this returns."""
        stored = take_trials(tree, len(self._trials))
        on_first(lambda: self._save(epochs_done, stored, diverged or {}))

    def _save(self, epochs_done: int, stored: Any, diverged: Divergences) -> None:
        write_signed(_seal(_made(self._running)), {"trials": self._trials})
        folder = self._running / str(epochs_done)
        about = {"diverged": {k: _plain(found) for k, found in diverged.items()}}
        _store(folder, stored, about)
        for old in self._complete()[:-KEEP]:
            self._delete(old)

    def load(self, epochs_done: int, like: Any) -> Any:
        """The stored tree, its trials repeated up to the leading axis of `like`.

        Raises:
          UserError: this process sees other files than the first one, who has looked at its own.
        """
        if not is_first():
            try:
                self._check(epochs_done)
            except Damaged as error:
                raise UserError(
                    f"{error}; the first process of the run has it whole: does this one see the "
                    "same --workdir?"
                ) from None
        count = len(self._trials)
        abstract = jax.tree.map(lambda x: np.empty((count, *x.shape[1:]), x.dtype), like)
        tree = array_files.load(self._running / str(epochs_done), abstract)
        return jax.tree.map(lambda x, old: pad_trials(x, old.shape[0]), tree, like)

    def save_final(
        self,
        stages: dict[str, Any],
        validation_score: np.ndarray,
        best_epoch: np.ndarray,
        diverged: Divergences | None = None,
    ) -> None:
        """The best parameters of every stage; the group is trained."""
        entries: list[dict[str, Any]] = [
            {"trial": trial, "validation_score": float(score), "best_epoch": int(epoch)}
            for trial, score, epoch in zip(self._trials, validation_score, best_epoch, strict=True)
        ]
        for entry in entries:
            if found := (diverged or {}).get(entry["trial"]):
                entry["diverged"] = _plain(found)
        stored = take_trials(stages, len(self._trials))

        def write() -> None:
            _made(self._final.parent)
            _store(self._final, stored, {"trials": entries})
            _remove(_seal(self._running))
            _remove(self._running)

        on_first(write)

    def _complete(self) -> list[int]:
        """Epochs done at each checkpoint that was written to its end, ascending."""
        return sorted(int(p.stem) for p in self._running.glob("*.json") if p.stem.isdecimal())

    def _check(self, epochs_done: int) -> dict[str, Any]:
        """The divergences that a checkpoint tells of; raises Damaged with names of files."""
        folder = self._running / str(epochs_done)
        try:
            about = read_signed(_seal(folder))
            damage = changes(folder, about["files"])
            found = about["diverged"]
            for entries in found.values():
                _divergences(entries)  # that they can be read
        except Damaged as error:
            raise Damaged(f"{_seal(folder)} {error}") from None
        except (KeyError, TypeError, AttributeError):
            raise Damaged(f"{_seal(folder)} is damaged (not as it was written)") from None
        if damage:
            raise Damaged(shorten(damage))
        return found

    def _delete(self, epochs_done: int) -> None:
        folder = self._running / str(epochs_done)
        _remove(_seal(folder))  # first: what is half deleted must not look complete
        _remove(folder)


def _store(folder: Path, tree: Any, about: dict[str, Any]) -> None:
    """A checkpoint and, as the last act, the file that makes it one."""
    _made(folder.parent)
    _require_space(folder.parent, tree)
    try:
        _remove(_seal(folder))
        array_files.save(folder, tree)
        write_signed(_seal(folder), about | {"files": digests(folder)})
    except Exception as error:
        for path in (folder, *folder.parent.glob(f"{folder.name}.*")):
            _remove(path)
        if is_disk_full(error):
            raise UserError(_disk_full(folder)) from error
        raise


def _seal(folder: Path) -> Path:
    return folder.with_name(folder.name + ".json")


def _read_final(path: Path) -> dict[str, Any]:
    """{"trials": ..., "files": ...}; of a workdir older than digests a list of trials alone."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        older = text.startswith("[")
        content = {"trials": json.loads(text), "files": {}} if older else read_signed(path)
        if not {"trials", "files"} <= content.keys():
            raise KeyError("no trials and files in it")
        return content
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run the same training command again") from None
    except (Damaged, KeyError, ValueError) as error:
        raise UserError(
            f"{path} {_why(error)}; delete it and run the same command again: it trains its trials "
            "anew"
        ) from None


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, Damaged) else f"is damaged ({error})"


def _plain(divergences: Sequence[Divergence]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(divergence) for divergence in divergences]


def _divergences(stored: Sequence[Mapping[str, Any]]) -> tuple[Divergence, ...]:
    return tuple(Divergence(**{**entry, "terms": tuple(entry["terms"])}) for entry in stored)


def _root(workdir: Path, kind: str) -> Path:
    return Path(workdir).resolve() / "checkpoints" / kind


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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
            f"{_disk_full(place)} It needs {needed / 2**20:.0f} MiB, {free / 2**20:.0f} MiB are "
            "free."
        )


def _disk_full(place: Path) -> str:
    return (
        f"disk full: no room for a checkpoint in {place}. Earlier checkpoints and results are "
        "intact; free space and run the same command again."
    )

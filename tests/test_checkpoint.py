"""Checkpoints that are cut off, truncated or flipped: named, and never used."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import flip, truncate
from one_run import fill_up, small_disk
from orbax.checkpoint import v1 as ocp

from mmer_jax import array_files, checkpoint
from mmer_jax.checkpoint import (
    GroupCheckpoints,
    begun_groups,
    finished_trials,
    load_final,
    usable_trials,
)
from mmer_jax.divergence import Divergence
from mmer_jax.errors import UserError

TRIALS = ["{} fold 0 seed 0", "{} fold 1 seed 0"]
DIVERGED = {TRIALS[1]: [Divergence("teacher", 3, 7, ("task",), 2)]}
LOST = {TRIALS[1]: [Divergence("teacher", 1, 1, ("cmd", "task"), 0)]}


def tree(number, size=3):
    """Of random numbers, which do not compress."""
    w = np.random.default_rng(number).normal(size=(2, size)).astype(np.float32)
    return {"w": w, "n": (np.arange(2) + number,)}


def of(workdir):
    return GroupCheckpoints(workdir, "abc", TRIALS)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """Checkpoints after 1, 2 and 3 epochs, of which two are kept."""
    workdir = tmp_path_factory.mktemp("running")
    for epochs in (1, 2, 3):
        of(workdir).save(epochs, tree(epochs), DIVERGED if epochs > 2 else None)
    return workdir


@pytest.fixture(scope="module")
def final(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("final")
    of(workdir).save(1, tree(1))
    of(workdir).save_final({"s": tree(1)}, np.array([0.5, np.nan]), np.array([3, 4]), DIVERGED)
    return workdir


def remove(path: Path, rng) -> None:
    path.unlink()


def files_of(folder: Path) -> list[Path]:
    """All that have a bit to flip, relative."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    return sorted(path.relative_to(folder) for path in files)


def test_the_newest_is_gone_on_from_and_two_are_kept(running):
    assert of(running).standing() == (3, DIVERGED, ())
    folder = running / "checkpoints" / "running" / "abc"
    assert sorted(p.name for p in folder.iterdir()) == ["2", "2.json", "3", "3.json"]
    np.testing.assert_array_equal(of(running).load(3, tree(0))["w"], tree(3)["w"])
    assert begun_groups(running) == [TRIALS]


@pytest.mark.parametrize("damage", [flip, truncate, remove])
def test_any_damaged_file_leads_to_the_checkpoint_before(running, tmp_path, damage):
    rng = np.random.default_rng(7)
    folder = Path("checkpoints", "running", "abc")
    files = files_of(running / folder / "3") + [Path("..", "3.json")]
    assert len(files) > 6
    for number, name in enumerate(files):
        workdir = tmp_path / str(number)
        shutil.copytree(running, workdir)
        damage(workdir / folder / "3" / name, rng)
        standing = of(workdir).standing()
        assert standing.epochs_done == 2 and standing.diverged == {}
        if damage is remove and name.name == "3.json":
            assert standing.damage == ()  # as if it had been cut off
        else:
            assert (
                f"abc/{(Path('3') / name).as_posix().replace('3/../', '')} " in standing.damage[0]
            )
        np.testing.assert_array_equal(of(workdir).load(2, tree(0))["w"], tree(2)["w"])
        assert not (workdir / folder / "3").exists()
        of(workdir).save(3, tree(3))
        assert of(workdir).standing() == (3, {}, ())


def test_another_process_looks_at_its_own_copy(running, tmp_path, monkeypatch):
    """The first one has looked at what it sees itself: in a bucket each host has a copy."""
    shutil.copytree(running, tmp_path / "w")
    folder = tmp_path / "w" / "checkpoints" / "running" / "abc" / "3"
    flip(folder / files_of(folder)[0], np.random.default_rng(0))
    monkeypatch.setattr(checkpoint, "is_first", lambda: False)
    np.testing.assert_array_equal(of(tmp_path / "w").load(2, tree(0))["w"], tree(2)["w"])
    with pytest.raises(UserError, match="the first process of the run has it whole"):
        of(tmp_path / "w").load(3, tree(0))


def test_without_a_good_one_training_starts_again(running, tmp_path):
    workdir = tmp_path / "w"
    shutil.copytree(running, workdir)
    for epochs in (2, 3):
        (workdir / f"checkpoints/running/abc/{epochs}/_CHECKPOINT_METADATA").write_bytes(b"{}")
    standing = of(workdir).standing()
    assert standing.epochs_done == 0 and len(standing.damage) == 2
    assert not list((workdir / "checkpoints/running/abc").iterdir())


def test_what_was_cut_off_is_cleared_away(running, tmp_path):
    """Killed in the middle of a checkpoint, and between its last file and the digests."""
    workdir = tmp_path / "w"
    shutil.copytree(running, workdir)
    folder = workdir / "checkpoints/running/abc"
    shutil.copytree(folder / "3", folder / "4")
    shutil.copytree(folder / "3" / "d", folder / "5.orbax-checkpoint-tmp" / "d")
    (folder / "4.json.tmp").write_text('{"dig')
    assert of(workdir).standing() == (3, DIVERGED, ())
    assert sorted(p.name for p in folder.iterdir()) == ["2", "2.json", "3", "3.json"]


@pytest.mark.parametrize("damage", [flip, truncate, remove])
def test_any_damaged_file_of_a_trained_model_is_named(final, tmp_path, damage):
    rng = np.random.default_rng(8)
    folder = Path("checkpoints", "final", "abc")
    np.testing.assert_array_equal(load_final(final, "abc")["s"]["w"], tree(1)["w"])
    for number, name in enumerate(files_of(final / folder) + [Path("..", "abc.json")]):
        workdir = tmp_path / str(number)
        shutil.copytree(final, workdir)
        damage(workdir / folder / name, rng)
        with pytest.raises(UserError) as caught:
            load_final(workdir, "abc")
        words = "run the same training command" if damage is remove else "anew"
        assert name.name in str(caught.value)
        assert words in str(caught.value) or "trains these trials anew" in str(caught.value)
    if damage is not remove:
        with pytest.raises(UserError, match="abc.json is damaged .*delete it"):
            finished_trials(workdir)


def test_divergences_are_kept_and_lost_trials_are_not_usable(final, tmp_path):
    assert finished_trials(final)[TRIALS[1]].diverged == tuple(DIVERGED[TRIALS[1]])
    assert list(usable_trials(final)) == TRIALS
    of(tmp_path).save_final({"s": tree(1)}, np.array([0.5, -np.inf]), np.array([3, -1]), LOST)
    assert list(usable_trials(tmp_path)) == TRIALS[:1] and len(finished_trials(tmp_path)) == 2


def test_a_workdir_older_than_digests_is_read(final, tmp_path):
    shutil.copytree(final, tmp_path / "w")
    path = tmp_path / "w/checkpoints/final/abc.json"
    entries = json.loads(path.read_text())["trials"]
    path.write_text(json.dumps([{k: v for k, v in e.items() if k != "diverged"} for e in entries]))
    assert list(usable_trials(tmp_path / "w")) == TRIALS
    np.testing.assert_array_equal(load_final(tmp_path / "w", "abc")["s"]["w"], tree(1)["w"])
    for name in files_of(path.with_suffix("")):
        (path.with_suffix("") / name).write_bytes(b"")
    with pytest.raises(UserError, match="abc cannot be read .*trains these trials anew"):
        load_final(tmp_path / "w", "abc")


# Orbax's threads complain as well.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("asked", [True, False])
def test_a_disk_that_fills_up_keeps_the_checkpoint_before(tmp_path, monkeypatch, asked):
    """Whether the room is asked for beforehand or ends in the middle of writing."""
    if not asked:
        monkeypatch.setattr(checkpoint, "_require_space", lambda *args: None)
    with small_disk(tmp_path / "disk", "8m") as disk:
        of(disk).save(1, tree(1, 100_000))
        filler = fill_up(disk, 100_000)
        with pytest.raises(UserError, match="disk full: no room for a checkpoint in .*intact"):
            of(disk).save(2, tree(2, 100_000))
        assert of(disk).standing() == (1, {}, ())
        loaded = of(disk).load(1, tree(0, 100_000))
        np.testing.assert_array_equal(loaded["w"], tree(1, 100_000)["w"])
        filler.unlink()
        of(disk).save(2, tree(2, 100_000))
        assert of(disk).standing().epochs_done == 2


def test_files_of_orbax_newer_interface_are_read(tmp_path):
    """As this package wrote them once; both ways of asking."""
    stored = {"a": np.arange(6.0).reshape(2, 3), "b": {"c": np.ones(2, np.int32)}}
    ocp.save(tmp_path / "x", stored)
    for found in (array_files.load(tmp_path / "x"), array_files.load(tmp_path / "x", like=stored)):
        jax.tree.map(np.testing.assert_array_equal, found, stored)

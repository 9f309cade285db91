"""Runs that are killed, whose disk fills up, whose files are damaged: nothing is lost or wrong."""

import shutil
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import flip, shrunk, train, truncate
from one_run import fill_up, kill_when, run, small_disk

from configs import utt_fusion
from mmer_jax import records, scoring
from mmer_jax.errors import UserError
from mmer_jax.report.runs import load_run
from mmer_jax.trained import load_trained


def config(**overrides):
    settings = {"data__source": "synthetic", "data__label": "emotion", "data__splits": "session"}
    settings |= {"trials__folds": [0, 1], "eval__protocols": ("full", "pattern")}
    return shrunk(utt_fusion.get_config(), **settings | overrides)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The workdir of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("whole")
    train(config(), workdir)
    return workdir


def after_epoch(monkeypatch, number, action):
    """Do something once that many epochs are done, before their checkpoint."""
    original, seen = records.Reporter.epoch, []

    def epoch(self, *args):
        original(self, *args)
        seen.append(args)
        if len(seen) == number:
            action()

    monkeypatch.setattr(records.Reporter, "epoch", epoch)


class Killed(Exception):
    """Stands for a process that ends without a word."""


def die():
    raise Killed


# ---- damaged files ----


def test_a_damaged_checkpoint_is_said_and_the_one_before_used(whole, tmp_path, monkeypatch):
    longer = {"stages__utt_fusion__constant_epochs": 3}
    with monkeypatch.context() as patched:
        after_epoch(patched, 3, die)
        with pytest.raises(Killed):
            train(config(**longer), tmp_path)
    (damaged,) = tmp_path.glob("checkpoints/running/*/2/_CHECKPOINT_METADATA")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    results, text = train(config(**longer), tmp_path)
    assert f"a checkpoint is damaged and deleted: {damaged} has" in text
    assert "resuming after 1 epochs" in text
    assert results == train(config(**longer), tmp_path / "whole")[0]


def test_without_any_good_checkpoint_the_run_starts_again(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        after_epoch(patched, 2, die)
        with pytest.raises(Killed):
            train(config(), tmp_path)
    for path in tmp_path.glob("checkpoints/running/*/*/_CHECKPOINT_METADATA"):
        path.unlink()
    _, text = train(config(), tmp_path)
    assert "is missing" in text and "no other is left; training from the start" in text
    assert (tmp_path / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()


READ_BACK = (
    "config.json",
    "evaluated.json",
    "results.csv",
    "metrics.jsonl",
    "normalization.npz",
    "checkpoints/final/*.json",
    "checkpoints/final/*/_CHECKPOINT_METADATA",
    "checkpoints/final/*/manifest.ocdbt",
)


@pytest.mark.parametrize("damage", [flip, truncate])
@pytest.mark.parametrize("name", READ_BACK)
def test_what_a_damaged_workdir_gives_is_right_or_an_error_that_names_the_file(
    whole, tmp_path, name, damage
):
    """To the same command, to prediction and to the report."""
    lines = (whole / "results.csv").read_bytes()
    weights = load_trained(whole).weights
    rng = np.random.default_rng(len(name))
    refused = 0
    for number in range(4):
        workdir = tmp_path / str(number)
        shutil.copytree(whole, workdir)
        (path,) = workdir.glob(name)
        damage(path, rng)
        try:
            found = load_trained(workdir).weights
            jax.tree.map(np.testing.assert_array_equal, found, weights)
        except UserError as error:
            refused += path.name in str(error)
            assert path.name in str(error)
        try:
            assert load_run(workdir).results == load_run(whole).results
        except UserError as error:
            assert path.name in str(error)
        try:
            train(config(), workdir)
            assert (workdir / "results.csv").read_bytes() == lines
        except UserError as error:
            assert path.name in str(error)
    needed = name not in ("results.csv", "metrics.jsonl")
    assert refused >= 3 if needed else not refused


# ---- full disks ----


# Orbax's threads may complain as well.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_disk_that_fills_up_in_training_costs_no_checkpoint(whole, tmp_path, monkeypatch):
    with small_disk(tmp_path / "disk", "64m") as disk:
        with monkeypatch.context() as patched:
            after_epoch(patched, 2, lambda: fill_up(disk, 2**16))
            with pytest.raises(UserError, match="disk full"):
                train(config(), disk / "w")
        (disk / "filler").unlink()
        _, text = train(config(), disk / "w")
        assert "resuming after 1 epochs" in text and "damaged" not in text
        assert (disk / "w" / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()


def test_a_disk_that_fills_up_in_scoring_keeps_the_earlier_results(whole, tmp_path, monkeypatch):
    evaluate = scoring.evaluate_trials

    def then_full(*args):
        results = evaluate(*args)
        fill_up(disk, 0)
        return results

    with small_disk(tmp_path / "disk", "64m") as disk:
        workdir = disk / "w"
        shutil.copytree(whole, workdir)
        before = (workdir / "results.csv").read_bytes()
        with monkeypatch.context() as patched:
            patched.setattr(scoring, "evaluate_trials", then_full)
            with pytest.raises(UserError, match="disk full while writing .*results.csv; the earl"):
                train(config(eval__protocols=("full",)), workdir)
        assert (workdir / "results.csv").read_bytes() == before
        (disk / "filler").unlink()
        results, text = train(config(eval__protocols=("full",)), workdir)
        assert {result.protocol for result in results} == {"full"} and " epoch " not in text


# ---- kills ----

KILLS, IN_A_CHAIN = 20, 4  # of a chain the same run is killed and started again
TWO_STAGES = (
    "--config=configs/demo.py",
    "--config.synthetic.n_utterances=60",
    "--config.model.embedding=4",
    "--config.model.classifier=(4,)",
    "--config.model.cascade=(4,2)",
    "--config.model.blocks=2",
    "--config.checkpoint.every_seconds=0",
    "--config.trials.folds=[0,1]",
    "--config.trials.max_parallel=1",
    "--config.eval.protocols=('full','pattern')",
    *(
        f"--config.stages.{stage}.{name}_epochs=2"
        for stage in ("utt_shared", "ifmmin")
        for name in ("constant", "decay")
    ),
)


def unfinished(workdir: Path) -> list[Path]:
    """Checkpoints that are being written: folders without the file that vouches for them."""
    folders = [
        path
        for pattern in ("checkpoints/running/*/*", "checkpoints/final/*")
        for path in workdir.glob(pattern)
        if path.suffix != ".json"
    ]
    return [path for path in folders if not path.with_name(path.name + ".json").exists()]


class Moment:
    """When to kill: at a random time of the run, or so many ms into a random checkpoint."""

    def __init__(self, workdir, rng, seconds, *, in_checkpoint):
        self.workdir, self.in_checkpoint = workdir, in_checkpoint
        self.at = time.monotonic() + rng.uniform(0, seconds)
        self.skip, self.delay = int(rng.integers(3)), rng.uniform(0, 0.03)
        self.seen: set[str] = set()

    def __call__(self) -> bool:
        if not self.in_checkpoint:
            return time.monotonic() > self.at
        self.seen |= {path.name for path in unfinished(self.workdir)}
        if len(self.seen) <= self.skip:
            return False
        time.sleep(self.delay)
        return True


@pytest.mark.long
def test_killed_at_twenty_random_moments(tmp_path):
    """Every chain of kills ends with the undisturbed run's results.csv."""
    flags = [*TWO_STAGES, f"--compilation_cache={tmp_path}/cache"]
    assert run(*flags, f"--workdir={tmp_path}/first").returncode == 0  # fills the cache
    begin = time.monotonic()
    undisturbed = run(*flags, f"--workdir={tmp_path}/undisturbed")
    seconds = time.monotonic() - begin
    assert undisturbed.returncode == 0, undisturbed.stderr
    expected = (tmp_path / "undisturbed" / "results.csv").read_bytes()
    rng = np.random.default_rng(0)
    killed = in_checkpoints = chain = 0
    while killed < KILLS:
        workdir = tmp_path / f"chain{chain}"
        for number in range(IN_A_CHAIN):
            moment = Moment(workdir, rng, seconds, in_checkpoint=number % 2 == 0)
            killed += kill_when(moment, *flags, f"--workdir={workdir}")
            in_checkpoints += bool(unfinished(workdir))
        done = run(*flags, f"--workdir={workdir}")
        assert done.returncode == 0, done.stderr
        assert "damaged" not in done.stdout
        assert (workdir / "results.csv").read_bytes() == expected, f"chain {chain}"
        assert not unfinished(workdir)
        chain += 1
        assert chain < KILLS, f"only {killed} runs were killed before they ended"
    assert in_checkpoints >= 3

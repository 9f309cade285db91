"""launch/slurm.sbatch under a real SLURM: an array of workers, time limits, several tasks."""

import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from launch_checkout import make_checkout
from places import ROOT

pytestmark = pytest.mark.slow

WORKERS = 3
# 4 points × 2 folds of utt_fusion, each trial a group of its own: 8 trials of seconds.
SWEEP = """
def sweep():
    for rate in (1e-3, 2e-3, 4e-3, 8e-3):
        yield {"stages.utt_fusion.learning_rate": rate}
"""
FLAGS = (
    "--config=configs/utt_fusion.py",
    "--sweep=four points.py",
    "--config.data.source=synthetic",
    "--config.data.label=emotion",
    "--config.data.splits=session",
    "--config.synthetic.n_utterances=200",
    "--config.model.embedding=8",
    "--config.stages.utt_fusion.constant_epochs=20",
    "--config.stages.utt_fusion.decay_epochs=20",
    "--config.trials.folds=[0,1]",
    "--config.trials.max_parallel=1",
)


def environment(**more):
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH"))}
    return {**inherited, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", **more}


class Slurm:
    """A SLURM of this machine, and a checkout that jobs are submitted from."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = environment(SLURM_CONF=str(folder / "slurm.conf"))

    def __call__(self, *command) -> str:
        """What a SLURM command prints."""
        done = subprocess.run(
            list(map(str, command)), env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def submit(self, checkout: Path, *options, flags) -> str:
        """The id of a job that runs launch/slurm.sbatch; its output stands in CHECKOUT/ID.log."""
        options = ("--parsable", "--output=%A_%a.log", *options)
        # sbatch takes the folder that it is called in for the repository.
        done = subprocess.run(
            ["env", "--default-signal=INT,TERM", "sbatch", *options, "launch/slurm.sbatch", *flags],
            cwd=checkout,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """Of a job or an array task; "" once SLURM is done with it."""
        found = self("squeue", "--noheader", "--array", "--format=%i %T")
        states = dict(line.split() for line in found.splitlines())
        return states.get(job, "")

    def start_now(self, job: str) -> None:
        """A requeued job waits two minutes before it starts; this one does not.

        It is told so until it starts: SLURM sets the time anew when it has cleared up the old one.
        """
        wait_until(lambda: self.state(job) == "PENDING", f"{job} is not requeued")

        def starts() -> bool:
            with contextlib.suppress(AssertionError):  # it is no longer pending
                self("scontrol", "update", f"JobId={job}", "StartTime=now")
            return self.state(job) != "PENDING"

        wait_until(starts, f"{job} does not start")

    def wait(self, *jobs: str, seconds: float = 300) -> None:
        wait_until(lambda: not any(map(self.state, jobs)), f"{jobs} do not end", seconds)


def wait_until(condition, complaint: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.2)


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    script = ["bash", str(ROOT / "tests/launch/slurm.sh")]
    # Daemons inherit what is ignored here, and jobs from them.
    with (folder / "start.log").open("w") as log:  # a pipe would stay open as long as they do
        begun = subprocess.run(
            ["env", "--default-signal=INT,TERM", *script, "start", str(folder)],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=log,
            timeout=600,
        )
    if begun.returncode == 3:
        pytest.skip(text_of(folder / "start.log").strip())
    assert begun.returncode == 0, text_of(folder / "start.log")
    yield Slurm(folder)
    subprocess.run([*script, "stop", str(folder)], env=environment(), check=True, timeout=120)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A checkout with the real engine, in a folder with a space."""
    place = make_checkout(tmp_path_factory.mktemp("check out"), engine=None)
    (place / "four points.py").write_text(SWEEP)
    return place


@pytest.fixture(scope="module")
def without_slurm(real):
    """The workdir of the same sweep in one process."""
    workdir = real / "alone"
    command = [sys.executable, "-m", "mmer_jax.main", *FLAGS, f"--workdir={workdir}"]
    done = subprocess.run(
        command, cwd=real, env=environment(), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return workdir


def epochs_of(log: str) -> Counter:
    """How often each epoch of each group, which is one trial here, was trained."""
    return Counter(re.findall(r"group (\d+)/8 utt_fusion epoch (\d+)/40 ", log))


def test_a_sweep_by_an_array_with_a_task_requeued_and_one_cancelled(slurm, real, without_slurm):
    workdir = real / "work dir"
    job = slurm.submit(real, f"--array=0-{WORKERS - 1}", flags=[*FLAGS, f"--workdir={workdir}"])
    tasks = [f"{job}_{i}" for i in range(WORKERS)]
    logs = [real / f"{task}.log" for task in tasks]
    for log in logs[1:]:
        wait_until(lambda log=log: "epoch" in text_of(log), f"{log} has no epoch")
    slurm("scontrol", "requeue", tasks[1])
    slurm("scancel", tasks[2])
    slurm.start_now(tasks[1])
    slurm.wait(*tasks)
    told = "\n".join(map(text_of, logs))
    for log in logs[1:]:
        assert "checkpoint written; run the same command again" in text_of(log), told
    assert re.findall("^(error|Traceback)", told, re.MULTILINE) == [], told
    assert text_of(logs[1]).count("8 trials (4 points") == 2, "the requeued task has not run again"
    # A cancelled task stays away, and the others have trained what it left.
    for name in ("results.csv", "sweep.csv"):
        assert (workdir / name).read_bytes() == (without_slurm / name).read_bytes(), told
    trained = epochs_of(told)
    assert len(trained) == 8 * 40 and set(trained.values()) == {1}, trained


@pytest.fixture
def probe(tmp_path):
    place = make_checkout(tmp_path / "checkout")
    (place / "notes").mkdir()
    return place


def started(probe: Path) -> bool:
    return (probe / "notes/0.started").exists()


def signals(probe: Path) -> list[int]:
    return json.loads(text_of(probe / "notes/0.signals") or "[]")


def test_before_the_time_limit_a_job_is_stopped_and_requeued(slurm, probe):
    """SLURM counts limits in minutes: the signal is asked for 55 seconds before the first."""
    flags = [f"--notes={probe}/notes"]
    job = slurm.submit(probe, "--time=1", "--signal=TERM@55", flags=flags)
    wait_until(lambda: slurm.state(job) == "PENDING" and started(probe), "it is not requeued")
    assert signals(probe) == [signal.SIGTERM]
    for note in (probe / "notes").iterdir():
        note.unlink()
    slurm.start_now(job)
    wait_until(lambda: started(probe), "the requeued job does not start")
    slurm("scancel", job)
    slurm.wait(job)
    assert signals(probe) == [signal.SIGTERM]


@pytest.mark.parametrize(("end", "again"), [("scancel", False), ("scontrol requeue", True)])
def test_a_job_gets_one_signal_and_comes_back_only_if_requeued(slurm, probe, end, again):
    job = slurm.submit(probe, flags=[f"--notes={probe}/notes"])
    wait_until(lambda: started(probe), "the job does not start")
    slurm(*end.split(), job)
    wait_until(lambda: slurm.state(job) in ("", "PENDING"), "the job does not end")
    assert signals(probe) == [signal.SIGTERM]
    assert (slurm.state(job) == "PENDING") is again
    if again:
        slurm("scancel", job)


@pytest.mark.parametrize("status", [0, 2])
def test_a_job_that_is_done_or_mistaken_is_not_requeued(slurm, probe, status):
    flags = [f"--notes={probe}/notes", "--seconds_0=0.1", f"--exit_0={status}"]
    job = slurm.submit(probe, flags=flags)
    slurm.wait(job)
    assert slurm("scontrol", "show", "job", job).count(f"ExitCode={status}:0") == 1


def test_tasks_of_a_job_are_processes_of_one_run(slurm, real, tmp_path):
    """Two processes that share the trials end with the results of one."""
    flags = [flag for flag in FLAGS if "sweep" not in flag and "max_parallel" not in flag]
    job = slurm.submit(real, "--ntasks=2", flags=[*flags, f"--workdir={tmp_path}/two"])
    slurm.wait(job)
    log = next(real.glob(f"{job}_*.log")).read_text()
    assert re.findall("^(error|Traceback)", log, re.MULTILINE) == [], log
    command = [sys.executable, "-m", "mmer_jax.main", *flags, f"--workdir={tmp_path}/one"]
    subprocess.run(command, cwd=real, env=environment(), check=True, capture_output=True)
    one, two = (rows_of(tmp_path / name / "results.csv") for name in ("one", "two"))
    assert list(two) == list(one)
    np.testing.assert_allclose(list(two.values()), list(one.values()), atol=1e-5)


def rows_of(path: Path) -> dict[tuple, float]:
    """What stands in results.csv, by all columns but the value."""
    with path.open() as file:
        return {
            tuple(v for k, v in row.items() if k != "value"): float(row["value"])
            for row in csv.DictReader(file)
        }


def test_a_job_whose_failure_may_pass_is_requeued(slurm, probe):
    flags = [f"--notes={probe}/notes", "--seconds_0=0.1", "--exit_0=75"]
    job = slurm.submit(probe, flags=flags)
    wait_until(lambda: slurm.state(job) == "PENDING" and started(probe), "it is not requeued")
    slurm("scancel", job)

"""What holds for every launch script: help, no names built in, clean shell; and SLURM's dry run."""

import re
import shlex
import shutil
import subprocess

import pytest
from launch_checkout import HOSTILE, calls_of, launch, make_checkout
from places import ROOT

SCRIPTS = ("processes.sh", "slurm.sbatch", "tpu.sh", "gke.sh")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return make_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_says_how_to_call_it(checkout, script):
    done = launch(checkout, script, "--help")
    assert done.returncode == 0 and done.stderr == ""
    assert f"launch/{script}" in done.stdout and "--dry_run" in done.stdout
    assert "#" not in done.stdout and "common.sh" not in done.stdout


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("processes.sh", ("2", "--workdir=w")),
        ("slurm.sbatch", ("--workdir=w",)),
        ("tpu.sh", ("stop", "--name=a", "--zone=z", "--project=p")),
        ("gke.sh", ("delete", "--name=a")),
    ],
)
def test_a_dry_run_may_be_asked_for_anywhere(checkout, script, arguments):
    """Who puts it last must not start anything."""
    first, last = (
        launch(checkout, script, *words)
        for words in (("--dry_run", *arguments), (*arguments, "--dry_run"))
    )
    assert first.returncode == last.returncode == 0, last.stderr
    # The port is chosen anew.
    same = [re.sub(r":\d{5} ", " ", done.stdout) for done in (first, last)]
    assert same[0] == same[1] != ""


def test_shellcheck_has_nothing_to_say():
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    files = [*(ROOT / "launch").glob("*.sh"), ROOT / "launch/slurm.sbatch"]
    done = subprocess.run(
        ["shellcheck", *files, ROOT / "tests/launch/slurm.sh"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def slurm(checkout, place, *flags, **environment):
    """The commands that the job script prints, by a shell and by shlex alike."""
    done = launch(checkout, "slurm.sbatch", "--dry_run", *flags, **environment)
    assert done.returncode == 0, done.stderr
    calls = calls_of(done.stdout, place)
    assert shlex.split(done.stdout, comments=True) == [word for call in calls for word in call]
    return calls


SRUN = ["srun", "--kill-on-bad-exit=0", "--wait=300"]
MAIN = [".venv/bin/python", "-m", "mmer_jax.main"]


def test_a_slurm_job_is_one_run_of_all_its_tasks(checkout, tmp_path):
    assert slurm(checkout, tmp_path / "calls", *HOSTILE) == [
        [*SRUN, *MAIN, *HOSTILE],
        ["scontrol", "requeue", "JOB"],
    ]


def test_an_array_task_is_a_worker_and_only_it_is_requeued(checkout, tmp_path):
    """The id of the last task of an array is that of the whole array."""
    array = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "7"}
    calls = slurm(checkout, tmp_path / "calls", "--x", **array, SLURM_CPUS_PER_TASK="4")
    assert calls == [
        [*SRUN, "--cpus-per-task=4", *MAIN, "--x", "--worker=3"],
        ["scontrol", "requeue", "7_3"],
    ]


def test_the_job_script_must_be_submitted(checkout):
    done = launch(checkout, "slurm.sbatch", "--workdir=w")
    assert done.returncode == 2
    assert done.stderr == "error: submit this with sbatch; see --help\n"


def test_the_job_script_names_no_partition_account_or_time():
    lines = (ROOT / "launch/slurm.sbatch").read_text().splitlines()
    options = [line.split()[1].split("=")[0] for line in lines if line.startswith("#SBATCH")]
    assert options == ["--job-name", "--requeue", "--open-mode", "--signal"]

"""The command line as a person meets it: real processes, signals, full disks, no TensorFlow."""

import os
import signal
import subprocess
import sys
import time

import pytest
from helpers import write_features
from one_run import command, environment, run, small_disk
from places import ROOT

SMALL = (
    "--config.synthetic.n_utterances=200",
    "--config.model.embedding=8",
    "--config.stages.utt_fusion.constant_epochs=3",
    "--config.stages.utt_fusion.decay_epochs=3",
    "--config.checkpoint.every_seconds=0",
)
FUSION = ("--config=configs/utt_fusion.py", *SMALL)
SYNTHETIC = (
    *FUSION,
    "--config.data.source=synthetic",
    "--config.data.label=emotion",
    "--config.data.splits=session",
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """results.csv of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    done = run(*SYNTHETIC, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert "utt_fusion epoch 6/6" in done.stdout and "missing, pooled" in done.stdout
    assert f"{workdir}/report/report.md" in done.stdout
    assert "Traceback" not in done.stderr
    return (workdir / "results.csv").read_bytes()


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL],
)
def test_a_signal_then_the_same_command_gives_the_same_results(undisturbed, tmp_path, number):
    process = subprocess.Popen(
        command(*SYNTHETIC, f"--workdir={tmp_path}"),
        cwd=ROOT,
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output = ""
    for line in process.stdout:
        output += line
        if "epoch 2/6" in line:
            process.send_signal(number)
    process.stdout.close()
    code = process.wait(timeout=120)
    assert not (tmp_path / "results.csv").exists(), output
    if number != signal.SIGKILL:
        assert code == 128 + number, output
        assert "checkpoint written; run the same command again" in output
    again = run(*SYNTHETIC, f"--workdir={tmp_path}")
    assert again.returncode == 0, again.stderr
    assert "resuming after" in again.stdout
    assert (tmp_path / "results.csv").read_bytes() == undisturbed


def kill_at(workdir, line, number, *flags):
    """Start the command and send the signal once `line` is printed; returns the output."""
    process = subprocess.Popen(
        command(*flags, f"--workdir={workdir}"),
        cwd=ROOT,
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output, sent = "", False
    for text in process.stdout:
        output += text
        if line in text and not sent:
            sent = True
            process.send_signal(number)
    process.stdout.close()
    process.wait(timeout=120)
    assert sent, output
    return output


@pytest.mark.slow
def test_a_sweep_that_is_killed_twice_ends_with_the_same_tables(tmp_path):
    """6 points × 5 folds × 2 seeds of the demo, in groups; SIGKILL once, SIGTERM once."""
    flags = [
        "--config=configs/demo.py",
        "--sweep=configs/sweeps/demo.py",
        "--config.trials.seeds=2",
        "--config.synthetic.n_utterances=120",
        "--config.model.embedding=8",
        "--config.model.classifier=(8,)",
        "--config.model.cascade=(8,4)",
        "--config.model.blocks=2",
        "--config.checkpoint.every_seconds=0",
        *(
            f"--config.stages.{stage}.{name}=1"
            for stage in ("utt_shared", "ifmmin")
            for name in ("constant_epochs", "decay_epochs")
        ),
    ]
    assert run(*flags, f"--workdir={tmp_path}/whole").returncode == 0
    killed = tmp_path / "killed"
    kill_at(killed, "group 2/6 utt_shared epoch 2/2", signal.SIGKILL, *flags)
    second = kill_at(killed, "group 3/5 ifmmin epoch 1/2", signal.SIGTERM, *flags)
    assert "resuming after" in second and "checkpoint written" in second
    last = run(*flags, f"--workdir={killed}")
    assert last.returncode == 0, last.stderr
    assert "resuming after" in last.stdout and "chosen by validation: point" in last.stdout
    # Of 6 groups one was done at the first end and two more at the second: 3 are left.
    assert "group 3/3 ifmmin epoch 2/2" in last.stdout
    for name in ("sweep.csv", "results.csv"):
        assert (killed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    points = (killed / "sweep.csv").read_text().splitlines()
    assert len(points) == 1 + 60 and sum(line.split(",")[5] == "1" for line in points) == 10
    # Another seed trains its own 30 trials and no finished one again.
    more = run(*flags, "--config.trials.seeds=3", f"--workdir={killed}")
    assert more.returncode == 0, more.stderr
    assert "group 1/3" in more.stdout and "group 4/" not in more.stdout


def test_two_processes_do_not_share_a_workdir(tmp_path):
    from mmer_jax.workdir import locked

    with locked(tmp_path):
        refused = run(*SYNTHETIC, f"--workdir={tmp_path}")
    assert refused.returncode == 75  # which a scheduler may try again
    assert f"is in use by process {os.getpid()}" in refused.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--sweep=nope.py",), "sweep file nope.py does not exist"),
        (
            ("--sweep=configs/sweeps/demo.py",),
            "point 0: unknown config key 'stages.ifmmin.learning_rate'",
        ),
        (
            ("--config.data.rooot=x",),
            "unknown config key 'data.rooot'; valid keys are: data.allow_speaker",
        ),
        (("--config.stages.x=1",), "unknown config key 'stages.x'"),
        (("--config.model.embedding=many",), "--config.model.embedding"),
        (("--workdirr=x",), "workdirr"),
        (("--config.data.root=/nowhere",), "feature directory /nowhere does not exist"),
        ((), "no feature directory given; pass --config.data.root=DIR"),
    ],
)
def test_mistakes_get_one_message(tmp_path, flags, message):
    done = run(
        "--config=configs/utt_fusion.py",
        f"--workdir={tmp_path}/w",
        "--config.data.source=directory",
        *flags,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and message in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_config_file_and_workdir_must_be_given():
    assert "no --config given" in run("--workdir=x").stderr
    assert "no --workdir given" in run("--config=configs/demo.py").stderr
    assert "config file nope.py does not exist" in run("--config=nope.py", "--workdir=x").stderr


def test_runs_without_tensorflow(tmp_path):
    """The engine and bench import no TensorFlow; records say what is missing."""
    blocker = tmp_path / "block" / "sitecustomize.py"
    blocker.parent.mkdir()
    blocker.write_text(
        "import sys\n"
        "for name in ('tensorflow', 'tensorflow_datasets'):\n"
        "    sys.modules[name] = None  # importing it now raises ImportError\n"
    )
    root = write_features(tmp_path / "features")
    flags = [
        *FUSION,
        f"--config.data.root={root}",
        "--config.data.label=emotion",
        "--config.data.splits=split",
        "--config.data.modalities=('text','audio')",
        f"--workdir={tmp_path}/w",
    ]
    path = f"{blocker.parent}{os.pathsep}{ROOT}"
    done = run(*flags, "--config.data.source=directory", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    refused = run(*flags, f"--workdir={tmp_path}/w2", PYTHONPATH=path)
    assert refused.returncode == 2
    assert "data.source='records' needs TensorFlow" in refused.stderr
    benched = subprocess.run(
        [sys.executable, "-c", "import mmer_jax.bench, mmer_jax.export, mmer_jax.parity"],
        env=environment(PYTHONPATH=path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert benched.returncode == 0, benched.stderr


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system with room for a few files, where this process may mount one."""
    with small_disk(tmp_path / "tiny", "256k") as place:
        yield place


def test_a_full_disk_is_said_and_costs_nothing_already_written(tiny_disk):
    workdir = tiny_disk / "w"
    flags = [*SYNTHETIC, f"--workdir={workdir}", "--config.model.embedding=64"]
    done = run(*flags)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: disk full") and "Traceback" not in done.stderr
    assert (workdir / "config.json").exists()
    subprocess.run(["mount", "-o", "remount,size=64m", str(tiny_disk)], check=True)
    again = run(*flags)
    assert again.returncode == 0, again.stderr


def test_a_terminal_gets_a_progress_bar(tmp_path):
    pytest.importorskip("pty")
    import pty

    leader, follower = pty.openpty()
    process = subprocess.Popen(
        command(*SYNTHETIC, f"--workdir={tmp_path}/w"),
        cwd=ROOT,
        env=environment(TERM="xterm", COLUMNS="100", LINES="40"),
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    shown, deadline = b"", time.monotonic() + 200
    while time.monotonic() < deadline:
        try:
            data = os.read(leader, 4096)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        shown += data
    os.close(leader)
    assert process.wait(timeout=60) == 0
    text = shown.decode()
    assert "utt_fusion 6/6" in text and "val UA" in text and "━" in text

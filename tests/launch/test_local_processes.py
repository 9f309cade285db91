"""launch/processes.sh with real processes: signals, exit statuses, nothing left behind."""

import json
import os
import shlex
import signal
import subprocess
import time

import pytest
from launch_checkout import HOSTILE, calls_of, launch, make_checkout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return make_checkout(tmp_path_factory.mktemp("checkout"))


def test_a_dry_run_prints_a_command_for_each_process(checkout, tmp_path):
    done = launch(checkout, "processes.sh", "--dry_run", 2, *HOSTILE)
    assert done.returncode == 0, done.stderr
    calls = sorted(calls_of(done.stdout, tmp_path / "calls"))
    coordinator = calls[0][3]
    assert coordinator.startswith("--coordinator=127.0.0.1:")
    common = ["python", "-m", "mmer_jax.main", coordinator, "--num_processes=2"]
    assert calls == [[*common, f"--process_id={i}", *HOSTILE] for i in range(2)]
    words = shlex.split(done.stdout)
    assert words[6 : 6 + len(HOSTILE)] == list(HOSTILE) and words[-1] == "wait"


@pytest.mark.parametrize("count", ["", "0", "two", "-1"])
def test_the_number_of_processes_must_be_one(checkout, count):
    done = launch(checkout, "processes.sh", count, "--workdir=w")
    assert done.returncode == 2
    assert done.stderr == f"error: '{count}' is no number of processes; see --help\n"


def test_without_an_environment_it_says_how_to_make_one(tmp_path):
    place = make_checkout(tmp_path / "checkout")
    (place / ".venv/bin/python").unlink()
    done = launch(place, "processes.sh", 2)
    assert done.returncode == 2 and "run bash launch/install.sh" in done.stderr


def test_the_first_process_is_shown_and_the_errors_of_the_others(checkout, tmp_path):
    flags = [f"--notes={tmp_path}", "--seconds_0=0.3", "--seconds_1=0.1", *HOSTILE]
    done = launch(checkout, "processes.sh", 2, *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "out of 0\n"
    assert sorted(done.stderr.splitlines()) == ["[1] error of 1", "error of 0"]
    for number in range(2):
        _, arguments = json.loads((tmp_path / f"{number}.started").read_text())
        assert arguments[2:] == [f"--process_id={number}", *flags]


def test_the_status_is_that_of_the_process_that_failed_first(checkout, tmp_path):
    flags = ("--seconds_0=0.9", "--exit_0=5", "--seconds_1=0.1", "--exit_1=3", "--seconds_2=0.1")
    done = launch(checkout, "processes.sh", 3, f"--notes={tmp_path}", *flags)
    assert done.returncode == 3, done.stderr


class Started:
    """processes.sh in a session of its own, with all processes up."""

    def __init__(self, checkout, notes, *flags, count=2):
        self.notes, self.count = notes, count
        # Tests may have been started with SIGINT ignored, which children would inherit.
        command = ["env", "--default-signal=INT,TERM", "bash", "launch/processes.sh", str(count)]
        self.process = subprocess.Popen(
            [*command, f"--notes={notes}", *flags],
            cwd=checkout,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        deadline = time.monotonic() + 30
        while len(list(notes.glob("*.started"))) < count:
            assert time.monotonic() < deadline, "the processes do not start"
            time.sleep(0.05)
        self.pids = [json.loads((notes / f"{i}.started").read_text())[0] for i in range(count)]

    def end(self, seconds=20):
        """The exit status, once nothing is left of any process."""
        self.process.communicate(timeout=seconds)
        for pid in self.pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
        return self.process.returncode

    def signals(self):
        found = (self.notes / f"{i}.signals" for i in range(self.count))
        return [json.loads(f.read_text()) if f.exists() else [] for f in found]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_every_process_once(checkout, tmp_path, number):
    started = Started(checkout, tmp_path)
    os.kill(started.process.pid, number)
    assert started.end() == 128 + number
    assert started.signals() == [[number], [number]]


def test_ctrl_c_in_a_terminal_reaches_every_process_once(checkout, tmp_path):
    """A terminal sends SIGINT to the whole group of the script."""
    started = Started(checkout, tmp_path)
    os.killpg(started.process.pid, signal.SIGINT)
    assert started.end() == 130
    assert started.signals() == [[signal.SIGINT], [signal.SIGINT]]


def test_a_second_signal_is_passed_on_too(checkout, tmp_path):
    started = Started(checkout, tmp_path, "--stubborn_0", "--seconds_0=2")
    for _ in range(2):
        os.kill(started.process.pid, signal.SIGTERM)
        time.sleep(0.7)
    assert started.end() == 143
    assert started.signals() == [[15, 15], [15]]


def test_processes_that_stay_when_another_was_killed_are_ended(tmp_path):
    place = make_checkout(tmp_path / "checkout")
    script = place / "launch/processes.sh"
    text = script.read_text()
    assert "\nGRACE=30 " in text and "\nLAST=10 " in text
    script.write_text(text.replace("\nGRACE=30 ", "\nGRACE=1 ").replace("\nLAST=10 ", "\nLAST=1 "))
    notes = tmp_path / "notes"
    notes.mkdir()
    started = Started(place, notes, "--stubborn_0", count=3)
    os.kill(started.pids[1], signal.SIGKILL)
    assert started.end() == 137
    assert started.signals() == [[15], [], [15]]

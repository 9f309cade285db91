"""Signals: noted by the loop, or by a thread where a program of many minutes keeps Python away."""

import signal
import sys
import time

from processes import started

LOOP = """
import hashlib, signal, sys, time
from mmer_jax.interrupt import Interrupted, StopRequest

try:
    with StopRequest(grace=float(sys.argv[1])) as stop:
        print("begun", flush=True)
        if sys.argv[2] == "busy":  # in C, without a look at signals
            hashlib.pbkdf2_hmac("sha512", b"x", b"y", 2**31 - 1)
        elif sys.argv[2] == "writing":
            with stop.undisturbed():
                hashlib.pbkdf2_hmac("sha512", b"x", b"y", 2_000_000)
                print("written", flush=True)
            hashlib.pbkdf2_hmac("sha512", b"x", b"y", 2**31 - 1)
        while not stop.requested:
            time.sleep(0.01)
        if sys.argv[2] != "late":
            raise Interrupted(stop.signal)
    print("went on", flush=True)
except Interrupted as stopped:
    print(f"seen {stopped}", flush=True)
    sys.exit(stopped.exit_code)
"""


def loop(grace, what):
    return [sys.executable, "-c", LOOP, str(grace), what]


def test_a_loop_sees_the_signal_and_ends_by_itself():
    with started(loop(30, "idle")) as (one,):
        one.until("begun")
        one.process.send_signal(signal.SIGTERM)
        assert one.end(20) == 128 + signal.SIGTERM
    assert "stopping after this epoch" in one.output and "seen SIGTERM" in one.output


def test_a_signal_that_came_when_no_loop_looked_is_not_lost():
    with started(loop(30, "late")) as (one,):
        one.until("begun")
        one.process.send_signal(signal.SIGTERM)
        assert one.end(20) == -signal.SIGTERM
    assert "went on" not in one.output


def test_a_program_that_takes_long_is_given_up():
    with started(loop(1, "busy")) as (one,):
        one.until("begun")
        begin = time.monotonic()
        one.process.send_signal(signal.SIGTERM)
        assert one.end(20) == 128 + signal.SIGTERM
        assert 0.9 < time.monotonic() - begin < 15
    assert "stopped at once (this epoch takes longer than 1 s)" in one.output


def test_a_second_signal_ends_at_once():
    with started(loop(60, "busy")) as (one,):
        one.until("begun")
        one.process.send_signal(signal.SIGINT)
        one.until("stopping after this epoch")
        one.process.send_signal(signal.SIGTERM)
        assert one.end(20) == 128 + signal.SIGINT
    assert "asked once more" in one.output


def test_a_checkpoint_that_was_begun_is_finished():
    with started(loop(0, "writing")) as (one,):
        one.until("begun")
        time.sleep(0.2)
        one.process.send_signal(signal.SIGTERM)
        assert one.end(60) == 128 + signal.SIGTERM
    assert "written" in one.output

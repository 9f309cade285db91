"""Runs of the command line by one process: to their end or killed; and small disks for them."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from places import ROOT


def command(*flags):
    return [sys.executable, "-m", "mmer_jax.main", *map(str, flags)]


def environment(**extra):
    return {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu", **extra}


def run(*flags, **extra):
    """The command to its end."""
    return subprocess.run(
        command(*flags),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(**extra),
        timeout=300,
    )


def kill_when(moment, *flags):
    """Start the command and SIGKILL it as soon as `moment()` is true; False if it ended before."""
    process = subprocess.Popen(
        command(*flags),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not moment():
        time.sleep(0.001)
    process.kill()
    return process.wait(timeout=60) == -signal.SIGKILL


@contextlib.contextmanager
def small_disk(place, size):
    """A file system of its own at `place`, where this process may mount one."""
    place.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root to mount a small tmpfs")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place]).returncode:
        pytest.skip("this machine does not allow mounting a tmpfs")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def fill_up(place, leave):
    """A file that takes all room of a disk but `leave` bytes."""
    filler = place / "filler"
    with filler.open("wb") as file:
        file.write(bytes(shutil.disk_usage(place).free - leave))
    return filler

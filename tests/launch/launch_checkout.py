"""A checkout whose engine is a probe, and programs that note how they were called."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from places import ROOT

# What quoting must survive: each is one flag.
HOSTILE = (
    "--workdir=gs://bucket/with space",
    "--config.data.modalities=('audio','text')",
    "--config.a=$(touch harm) `touch harm` $HOME",
    "--config.b=two\nlines",
    '--config.c="double" \\back\\slash',
    "--config.d=; touch harm & | > harm #",
    "--config.e=*",
    "{name}",
    "",
    "END_OF_MANIFEST",
)

# Notes the arguments and each signal; a process does what the flags of its number say.
PROBE = """
import json, os, pathlib, signal, sys, time

flags = dict(a[2:].partition("=")[::2] for a in sys.argv[1:] if a.startswith("--"))
number = flags.get("process_id", "0")
notes = pathlib.Path(flags["notes"]) / number
received = []


def note(signal_number, frame):
    received.append(signal_number)
    notes.with_suffix(".signals").write_text(json.dumps(received))


for name in ("SIGINT", "SIGTERM"):
    signal.signal(getattr(signal, name), note)
print(f"out of {number}", flush=True)
print(f"error of {number}", file=sys.stderr, flush=True)
notes.with_suffix(".new").write_text(json.dumps([os.getpid(), sys.argv[1:]]))
notes.with_suffix(".new").rename(notes.with_suffix(".started"))
end = time.monotonic() + float(flags.get(f"seconds_{number}", 60))
while time.monotonic() < end and (not received or f"stubborn_{number}" in flags):
    time.sleep(0.02)
if received:
    time.sleep(0.5)  # a checkpoint is written; another signal would be noted
    sys.exit(128 + received[0])
sys.exit(int(flags.get(f"exit_{number}", 0)))
"""

RECORDER = """#!{python}
import json, os, sys
with open(os.environ["RECORD"], "a") as file:
    file.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
"""


def make_checkout(place: Path, engine: str | None = PROBE) -> Path:
    """A folder with launch/ and an engine: `engine` as mmer_jax.main, or (None) the real one."""
    shutil.copytree(ROOT / "launch", place / "launch")
    executable(place / ".venv/bin/python", f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    if engine is None:
        for name in ("mmer_jax", "configs"):
            (place / name).symlink_to(ROOT / name)
    else:
        (place / "mmer_jax").mkdir()
        (place / "mmer_jax/__init__.py").touch()
        (place / "mmer_jax/main.py").write_text(engine)
    return place


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def launch(checkout: Path, script: str, *arguments, **environment) -> subprocess.CompletedProcess:
    """`bash launch/SCRIPT ...`, with none of this shell's own settings of slices and jobs."""
    ours = ("TPU_", "GKE_", "SLURM_")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    return subprocess.run(
        ["bash", f"launch/{script}", *map(str, arguments)],
        cwd=checkout,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def calls_of(commands: str, place: Path) -> list[list[str]]:
    """What the shell makes of printed commands: the argv of each that would be called."""
    place.mkdir()
    for name in ("gcloud", "kubectl", "srun", "scontrol", "tar", "mkdir", ".venv/bin/python"):
        executable(place / "bin" / name, RECORDER.format(python=sys.executable))
    (place / ".venv").symlink_to(place / "bin/.venv")
    record = place / "record"
    record.touch()
    environment = {"PATH": f"{place}/bin:{os.environ['PATH']}", "RECORD": str(record)}
    subprocess.run(["bash", "-euc", commands], cwd=place, env=environment, check=True, timeout=60)
    assert not (place / "harm").exists(), "a value was carried out"
    return [json.loads(line) for line in record.read_text().splitlines()]

"""python -m mmer_jax.main --config=configs/NAME.py --workdir=DIR [--config.section.key=value ...]

Trains and scores one configuration. With --sweep=configs/sweeps/NAME.py it trains every point of a
sweep and scores the best one; with --each as well, every point is scored, as a run of its own.
The same command on the same workdir goes on where it stopped.

Several processes carry out one run together: tasks of a SLURM job and hosts of a TPU slice find
each other, others are given --coordinator, --num_processes and --process_id. With --worker=INDEX
several runs (tasks of a SLURM array, of an indexed job) share the trials of one workdir.
"""

from functools import partial
from pathlib import Path

from absl import app, flags
from rich.console import Console

from mmer_jax import entry
from mmer_jax.ablation import run_each
from mmer_jax.errors import UserError
from mmer_jax.sweep import load_sweep
from mmer_jax.train import run

SWEEP = flags.DEFINE_string("sweep", None, "File whose sweep() yields overrides of the config.")
EACH = flags.DEFINE_bool("each", False, "Score every point of the sweep, and compare them.")
WORKER = flags.DEFINE_string(
    "worker", "", "Number of this worker, of several that share the workdir's trials."
)


def check_flags() -> None:
    if EACH.value and not SWEEP.value:
        raise UserError("--each scores every point of a sweep: give --sweep=FILE as well")
    if WORKER.value and not WORKER.value.isdecimal():
        raise UserError(f"--worker={WORKER.value}; expected a number from 0")
    if WORKER.value and "://" in str(entry.WORKDIR.value):
        raise UserError(
            f"--worker with --workdir={entry.WORKDIR.value}: workers share trials by a file system "
            "with hard links, which a bucket is not; choose a workdir on one, or run without "
            "--worker"
        )


def main(argv: list[str]) -> None:
    del argv
    entry.run(train)


def train(workdir: Path, console: Console) -> None:
    config, worker = entry.CONFIG.value, int(WORKER.value) if WORKER.value else None
    points = load_sweep(Path(SWEEP.value), config) if SWEEP.value else None
    if points and EACH.value:
        run_each(points, workdir, console, worker=worker)
    else:
        run(config, workdir, console, points, worker=worker)


if __name__ == "__main__":
    app.run(main, flags_parser=partial(entry.parse_flags, check=check_flags))

"""python -m mmer_jax.main --config=configs/NAME.py --workdir=DIR [--config.section.key=value ...]

Trains and scores one configuration. With --sweep=configs/sweeps/NAME.py it trains every point of a
sweep and scores the best one; with --each as well, every point is scored, as a run of its own.
The same command on the same workdir goes on where it stopped. With --worker=INDEX several processes
(tasks of a SLURM array, of an indexed job) share the trials of one workdir.
"""

import sys
import traceback
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console

from mmer_jax import cli, distributed, mirror
from mmer_jax.ablation import run_each
from mmer_jax.errors import UserError, is_disk_full
from mmer_jax.interrupt import Interrupted
from mmer_jax.sweep import load_sweep
from mmer_jax.train import run

CONFIG = config_flags.DEFINE_config_file("config", help_string="Configuration file.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints, results and report go.")
SWEEP = flags.DEFINE_string("sweep", None, "File whose sweep() yields overrides of the config.")
WORKER = flags.DEFINE_string(
    "worker", "", "Number of this worker, of several that share the workdir's trials."
)
EACH = flags.DEFINE_bool("each", False, "Score every point of the sweep, and compare them.")
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of the first of several processes; else as the cluster says."
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes carry out the run.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
CACHE = flags.DEFINE_string(
    "compilation_cache", cli.CACHE, "Compiled programs are kept here; empty: not."
)


def parse_flags(argv: list[str]) -> list[str]:
    """absl's flags, with our own message for what is misspelt."""
    try:
        arguments = cli.parse_flags(argv)
        if not WORKDIR.value:
            raise UserError("no --workdir given: where checkpoints, results and report should go")
        if EACH.value and not SWEEP.value:
            raise UserError("--each scores every point of a sweep: give --sweep=FILE as well")
        if WORKER.value and not WORKER.value.isdecimal():
            raise UserError(f"--worker={WORKER.value}; expected a number from 0")
        return arguments
    except UserError as error:
        _fail(error)


def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.FATAL)  # the libraries' notices are not for our users
    cli.use_compilation_cache(CACHE.value)
    try:
        distributed.initialize(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
        console = Console(
            width=None if sys.stdout.isatty() else 120, quiet=not distributed.is_first()
        )
        distributed.follow_others()
        points = load_sweep(Path(SWEEP.value), CONFIG.value) if SWEEP.value else None
        workdir = distributed.first_then_others(lambda: mirror.folder(WORKDIR.value))
        worker = int(WORKER.value) if WORKER.value else None
        if points and EACH.value:
            run_each(points, workdir, console, worker=worker)
        else:
            run(CONFIG.value, workdir, console, points, worker=worker)
    except Interrupted as stopped:
        console.print(f"{stopped}: checkpoint written; run the same command again to go on")
        sys.exit(stopped.exit_code)
    except KeyboardInterrupt:
        _end(130, "stopped at once; run the same command again to go on from the last checkpoint")
    except distributed.KnownToAll as error:
        _fail(error) if distributed.is_first() else sys.exit(2)
    except (UserError, OSError) as error:
        _end(2, f"error: {error}")
    except Exception as error:
        if is_disk_full(error):
            _end(2, f"error: disk full ({error}); free space and run the same command again")
        if "RESOURCE_EXHAUSTED" in str(error):
            _end(2, f"error: out of device memory; try --config.trials.max_parallel=N ({error})")
        if distributed.count() == 1:
            raise
        _end(1, traceback.format_exc())


def _end(code: int, why: str) -> NoReturn:
    """What happened to this process alone ends the others as well."""
    print(why, file=sys.stderr, flush=True)
    distributed.tell_end(code, why)
    distributed.leave(code)


def _fail(error: Exception | str) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)

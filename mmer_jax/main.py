"""python -m mmer_jax.main --config=configs/NAME.py --workdir=DIR [--config.section.key=value ...]

Trains and scores one configuration. With --sweep=configs/sweeps/NAME.py it trains every point of a
sweep and scores the best one; with --each as well, every point is scored, as a run of its own.
The same command on the same workdir goes on where it stopped.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console

from mmer_jax import cli
from mmer_jax.ablation import run_each
from mmer_jax.errors import UserError, is_disk_full
from mmer_jax.interrupt import Interrupted
from mmer_jax.sweep import load_sweep
from mmer_jax.train import run

CONFIG = config_flags.DEFINE_config_file("config", help_string="Configuration file.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints, results and report go.")
SWEEP = flags.DEFINE_string("sweep", None, "File whose sweep() yields overrides of the config.")
EACH = flags.DEFINE_bool("each", False, "Score every point of the sweep, and compare them.")
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
        return arguments
    except UserError as error:
        _fail(error)


def main(argv: list[str]) -> None:
    del argv
    guarded(_run)


def _run(workdir: Path, console: Console) -> None:
    points = load_sweep(Path(SWEEP.value), CONFIG.value) if SWEEP.value else None
    if points and EACH.value:
        run_each(points, workdir, console)
    else:
        run(CONFIG.value, workdir, console, points)


def guarded(command: Callable[[Path, Console], object]) -> None:
    """Run a training command on --workdir; what it raises becomes a message and an exit status."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    logging.set_verbosity(logging.FATAL)  # the libraries' notices are not for our users
    cli.use_compilation_cache(CACHE.value)
    try:
        command(Path(WORKDIR.value).expanduser(), console)
    except Interrupted as stopped:
        console.print(f"{stopped}: checkpoint written; run the same command again to go on")
        sys.exit(stopped.exit_code)
    except KeyboardInterrupt:
        console.print(
            "stopped at once; run the same command again to go on from the last checkpoint"
        )
        sys.exit(130)
    except (UserError, OSError) as error:
        _fail(error)
    except Exception as error:
        if is_disk_full(error):
            _fail(f"disk full ({error}); free space and run the same command again")
        if "RESOURCE_EXHAUSTED" in str(error):
            _fail(f"out of device memory; try --config.trials.max_parallel=N ({error})")
        raise


def _fail(error: Exception | str) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)

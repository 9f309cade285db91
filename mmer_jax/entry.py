"""What training commands share: their flags, several processes, and how a run ends.

Exit status: 0; 2 for what a person can mend, said in one message; 75 for what another attempt may
mend by itself; 128 + signal when a signal stopped the run, which then goes on from where it was; 1
with a traceback for a fault of ours.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from absl import flags, logging
from ml_collections import config_flags
from rich.console import Console

from mmer_jax import cli, distributed, mirror
from mmer_jax.errors import UserError, exit_code_of, is_disk_full
from mmer_jax.interrupt import Interrupted

CONFIG = config_flags.DEFINE_config_file("config", help_string="Configuration file.")
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where checkpoints, results and report go; a folder or gs://..."
)
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of the first of several processes; else as the cluster says."
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes carry out the run.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
CACHE = flags.DEFINE_string(
    "compilation_cache", cli.CACHE, "Compiled programs are kept here; empty: not."
)


def parse_flags(argv: list[str], check: Callable[[], None] = lambda: None) -> list[str]:
    """absl's flags, with our own message for what is misspelt.

    Args:
      check: raises a UserError where flags do not go together.
    """
    try:
        arguments = cli.parse_flags(argv)
        if not WORKDIR.value:
            raise UserError("no --workdir given: where checkpoints, results and report should go")
        check()
        return arguments
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def run(command: Callable[[Path, Console], object]) -> None:
    """Carry out a command on --workdir, with the other processes of the run if there are any."""
    logging.set_verbosity(logging.FATAL)  # the libraries' notices are not for our users
    cli.use_compilation_cache(CACHE.value)
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        distributed.initialize(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
        distributed.follow_others()
        signal.signal(signal.SIGTERM, _terminate)  # while it does not train; see interrupt.py
        console.quiet = not distributed.is_first()
        workdir = distributed.first_then_others(lambda: mirror.folder(str(WORKDIR.value)))
        command(workdir, console)
    except Interrupted as stopped:
        console.print(f"{stopped}: checkpoint written; run the same command again to go on")
        sys.exit(stopped.exit_code)
    except KeyboardInterrupt:
        _end(130, "stopped at once; run the same command again to go on from the last checkpoint")
    except distributed.KnownToAll as error:
        if distributed.is_first():
            print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except UserError as error:
        _end(error.exit_code, f"error: {error}")
    except OSError as error:
        _end(exit_code_of(error), f"error: {error}")
    except Exception as error:
        if (code := distributed.end_of_others()) is not None:
            distributed.leave(code)
        if is_disk_full(error):
            _end(2, f"error: disk full ({error}); free space and run the same command again")
        if "RESOURCE_EXHAUSTED" in str(error):
            _end(2, f"error: out of device memory; try --config.trials.max_parallel=N ({error})")
        if distributed.count() == 1:
            raise
        _end(1, traceback.format_exc())


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM came where there is no epoch to finish: in preparing, or in scoring.

    Nothing is raised, as Python drops what is raised while it clears up weak references. Whatever
    is being written counts only when it is complete.
    """
    os.write(2, b"SIGTERM: stopped at once; run the same command again to go on\n")
    distributed.tell_end(128 + number, signal.Signals(number).name)
    distributed.end_at_once(128 + number)


def _end(code: int, why: str) -> NoReturn:
    """What happened to this process alone ends the others as well."""
    print(why, file=sys.stderr, flush=True)
    distributed.tell_end(code, why)
    distributed.leave(code)

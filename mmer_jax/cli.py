"""The command lines: --config=FILE and its overrides, with errors a person can act on.

`main` takes absl flags, because of the configuration; the other commands take `Parser`'s.
"""

import argparse
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import jax
from absl import flags
from ml_collections import ConfigDict

from mmer_jax import config as config_lib
from mmer_jax.errors import UserError
from mmer_jax.records import write_atomically

CACHE = "~/.cache/mmer_jax/xla"  # of compiled programs


def use_compilation_cache(place: str) -> None:
    """Keep compiled programs in the folder `place` from process to process; empty: do not."""
    if place:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(place))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


class Parser(argparse.ArgumentParser):
    """An argument parser that complains in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def exit_status(command: Callable[[], int | None]) -> int:
    """Run a command: its own status or 0; 2 and one line on stderr for what a person can mend."""
    try:
        return command() or 0
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def write_out(path: Path, content: str | bytes) -> None:
    """Write what a person asked for by --out, and the folders above it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error}; choose another --out") from None


def parse_flags(argv: list[str]) -> list[str]:
    """Parse absl flags; returns what is left.

    Raises:
      UserError: an unknown flag, a config file that is missing or broken, an unknown config key
        (the message lists the valid ones) or a value of the wrong type.
    """
    path = _value_of(argv, "--config")
    wants_help = any(argument.lstrip("-").startswith("help") for argument in argv[1:])
    if path:
        overrides = [a[len("--config.") :].split("=")[0] for a in argv if a.startswith("--config.")]
        config_lib.check_overrides(load_config(path), overrides)
    elif not wants_help:
        raise UserError("no --config given, for example --config=configs/ifmmin.py")
    try:
        return flags.FLAGS(argv)
    except (flags.Error, ValueError, TypeError, SyntaxError, AttributeError, KeyError) as error:
        raise UserError(f"{error}") from error


def load_config(path: str) -> ConfigDict:
    """What get_config() of the file returns."""
    file = Path(path.split(":")[0])
    if not file.exists():
        raise UserError(f"config file {file} does not exist")
    # A config may import its neighbours (`from configs import ...`) wherever it is run from.
    sys.path.append(str(file.resolve().parent.parent))
    try:
        return runpy.run_path(str(file))["get_config"]()
    except Exception as error:
        raise UserError(f"config file {file} fails: {type(error).__name__}: {error}") from error


def _value_of(argv: list[str], flag: str) -> str | None:
    for i, argument in enumerate(argv):
        if argument.startswith(flag + "="):
            return argument.split("=", 1)[1]
        if argument == flag and i + 1 < len(argv):
            return argv[i + 1]
    return None

"""The command line that the importers share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmer_jax import cli


def parser(layout: str, description: str) -> cli.Parser:
    """ROOT OUT --missing, of `python -m mmer_jax.data.layouts.LAYOUT`."""
    made = cli.Parser(prog=f"python -m mmer_jax.data.layouts.{layout}", description=description)
    made.add_argument("root", type=Path, help="folder of the release")
    made.add_argument("out", type=Path, help="feature directory to write; must not exist")
    made.add_argument(
        "--missing",
        choices=("error", "absent"),
        default="error",
        help="utterances that a modality lacks: refuse them, or import them without it",
    )
    return made


def run(args: Any, importer: Callable[[], list[str]], advice: str) -> int:
    """Import, then print the importer's remarks and how to train; returns the exit status."""

    def command() -> None:
        for remark in importer():
            print(remark)
        print(f"wrote {args.out}; train with --config.data.root={args.out} {advice}")

    return cli.exit_status(command)


def class_names(text: str) -> tuple[str, ...]:
    """'happy,sad' as a tuple."""
    return tuple(name.strip() for name in text.split(","))

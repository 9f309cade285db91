"""python -m mmer_jax.speech.train --config=configs/l1_recogniser.py --workdir=DIR

Trains a model of the speech part; --config.section.key=value overrides a setting. The same command
on the same workdir goes on where it stopped.
"""

from pathlib import Path

from absl import app
from rich.console import Console

from mmer_jax import entry
from mmer_jax.speech.training import train


def main(argv: list[str]) -> None:
    del argv

    def command(workdir: Path, console: Console) -> None:
        train(entry.CONFIG.value, workdir, console)

    entry.run(command)


if __name__ == "__main__":
    app.run(main, flags_parser=entry.parse_flags)

"""python -m mmer_jax.bench.communication: bytes between devices in a training step of IF-MMIN.

Counted in the compiled programs as trials, devices and the batch grow. Nothing is trained: the
programs are compiled for fake devices of the CPU. What a program sends is decided before any
backend turns it into its own instructions, so that the figures hold for others as well.
"""

from collections.abc import Sequence

import jax
from rich.console import Console
from rich.table import Table

from mmer_jax.bench.collectives import KINDS, bytes_sent
from mmer_jax.bench.setting import Student, original_corpus

DEVICES = 8
# (trials, devices on the trial axis, devices on the data axis, batch)
SETTINGS = (
    (8, 8, 1, 128),
    (16, 8, 1, 256),
    (1, 1, 2, 128),
    (1, 1, 8, 128),
    (1, 1, 8, 256),
    (8, 2, 4, 128),
)
Row = dict[str, float]


def measure(settings: Sequence[tuple[int, int, int, int]] = SETTINGS) -> list[Row]:
    """MiB that a device receives in a step of all its trials, by kind."""
    rows = []
    for trials, across, data, batch in settings:
        corpus = original_corpus(batch)
        student = Student(corpus, trials, batch=batch, data=data, devices=across * data)
        # What an epoch sends besides its steps is taken off.
        one, three = (bytes_sent(student.compiled(steps=n).as_text()) for n in (1, 3))
        sent = {kind: (three[kind] - one[kind]) / 2 / 2**20 for kind in KINDS}
        rows.append(
            {"trials": trials, "trial devices": across, "data devices": data, "batch": batch}
            | sent
            | {"all": sum(sent.values()), "all, per trial": sum(sent.values()) / (trials / across)}
        )
    return rows


def show(console: Console, rows: Sequence[Row]) -> None:
    table = Table(title="MiB that a device receives in a step", title_justify="left")
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(f"{v:.1f}" if isinstance(v, float) else str(v) for v in row.values()))
    console.print(table)


def main() -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", DEVICES)
    show(Console(), measure())


if __name__ == "__main__":
    main()

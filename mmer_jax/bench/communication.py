"""python -m mmer_jax.bench.communication: bytes between devices in a training step of IF-MMIN.

Counted in the compiled programs as trials, devices and the batch grow. Nothing is trained: the
programs are compiled for fake devices of the CPU. What a program sends is decided before any
backend turns it into its own instructions, so that the figures hold for others as well.
"""

from collections import Counter
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


def measure(settings: Sequence[tuple[int, int, int, int]] = SETTINGS) -> list[Counter[str]]:
    """For each setting, kind of collective -> bytes that a device receives in a step."""
    found = []
    for trials, across, data, batch in settings:
        corpus = original_corpus(batch)
        student = Student(corpus, trials, batch=batch, data=data, devices=across * data)
        # What an epoch sends besides its steps is taken off.
        one, three = (bytes_sent(student.compiled(steps=n).as_text()) for n in (1, 3))
        found.append(Counter({kind: (three[kind] - one[kind]) // 2 for kind in KINDS}))
    return found


def show(console: Console, settings, found: Sequence[Counter[str]]) -> None:
    table = Table(title="MiB that a device receives in a step", title_justify="left")
    kinds = [kind for kind in KINDS if any(sent[kind] for sent in found)]
    for name in ("trials", "devices", "batch", *kinds, "a trial"):
        table.add_column(name, justify="right")
    for (trials, across, data, batch), sent in zip(settings, found, strict=True):
        by_kind = [f"{sent[kind] / 2**20:.2f}" for kind in kinds]
        a_trial = sent.total() / 2**20 * across / trials
        table.add_row(f"{trials}", f"{across}×{data}", f"{batch}", *by_kind, f"{a_trial:.2f}")
    table.caption = "devices: those of the trial axis × those that share a batch"
    console.print(table)


def main() -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", DEVICES)
    show(Console(), SETTINGS, measure())


if __name__ == "__main__":
    main()

"""Where the training of a trial stopped being finite.

A trial that was not finite once has left its way: its parameters are of no use and later epochs
of the stage do not count. Its best epoch before does; a trial without one is lost.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

# Begins the names of the updates at which terms were not finite first; 0: at none.
NOT_FINITE = "not_finite/"
TOTALS = ("loss", "gradient_norm")  # not finite where one of the other terms is not
MAY_BE_INFINITE = ("best_score",)  # as long as no epoch has counted


@dataclasses.dataclass(frozen=True)
class Divergence:
    """Of one trial in one stage.

    Attributes:
      stage: its name.
      epoch: counted from 1.
      step: updates of the trial in this stage, up to and with the one that was not finite.
      terms: what was not finite then: terms of the loss, or what follows from them.
      best_epoch: counted from 1, the best epoch before; 0: there is none, the trial is lost.
    """

    stage: str
    epoch: int
    step: int
    terms: tuple[str, ...]
    best_epoch: int

    @property
    def lost(self) -> bool:
        return not self.best_epoch

    def __str__(self) -> str:
        what = f"{', '.join(self.terms)} {'is' if len(self.terms) == 1 else 'are'} not finite"
        return f"{what} at step {self.step} (epoch {self.epoch}) of stage {self.stage}"

    @property
    def consequence(self) -> str:
        if self.lost:
            return "no epoch before it counts, so that the trial has no scores"
        return f"the best epoch before it counts, epoch {self.best_epoch}"


def find(stage: str, epoch: int, record: Mapping[str, np.ndarray]) -> dict[int, Divergence]:
    """The trials that an epoch's record is not finite of, by their position.

    Args:
      stage: its name.
      epoch: counted from 1.
      record: what `Programs.train_epoch` returns, [T] each.
    """
    finite = np.all([np.isfinite(v) for k, v in record.items() if k not in MAY_BE_INFINITE], axis=0)
    found = {}
    for position in np.flatnonzero(~finite):
        mine = {name: values[position] for name, values in record.items()}
        step, terms = _first(mine)
        before = int(mine["best_epoch"]) + 1
        found[int(position)] = Divergence(stage, epoch, step, terms, before)
    return found


def _first(record: Mapping[str, float]) -> tuple[int, tuple[str, ...]]:
    """(step, terms) of a trial: those of its loss, else what was found at the epoch's end."""
    steps = {
        name.removeprefix(NOT_FINITE): int(step)
        for name, step in record.items()
        if name.startswith(NOT_FINITE) and step
    }
    if not steps:
        bad = [name for name, value in record.items() if not np.isfinite(value)]
        return int(record["step"]), tuple(name for name in bad if name not in MAY_BE_INFINITE)
    first = min(steps.values())
    together = sorted(name for name, step in steps.items() if step == first)
    own = [name for name in together if name not in TOTALS]
    return first, tuple(own or [name for name in TOTALS if name in together][:1])

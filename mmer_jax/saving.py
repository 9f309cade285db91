"""When the state of training is saved: every so often, and when a signal asks the run to end."""

import time
from pathlib import Path
from typing import Any

from mmer_jax import distributed, mirror
from mmer_jax.checkpoint import Divergences, GroupCheckpoints
from mmer_jax.interrupt import Interrupted, StopRequest


class Saving:
    """Saves a group's state after the epochs after which it is due.

    Args:
      checkpoints: of the group.
      workdir: of the run.
      every_seconds: how often; 0: after every epoch.
    """

    def __init__(self, checkpoints: GroupCheckpoints, workdir: Path, every_seconds: float):
        self._checkpoints, self._workdir, self._every = checkpoints, workdir, every_seconds
        self._saved_at = time.monotonic()

    def after_epoch(
        self,
        epochs_done: int,
        tree: Any,
        stop: StopRequest,
        diverged: Divergences | None = None,
    ) -> None:
        """Save the leaves [T, ...] of `tree`, if it is time.

        Raises:
          Interrupted: a signal came, and the state is saved.
        """
        is_due = time.monotonic() - self._saved_at >= self._every and distributed.is_first()
        # A signal may have come to one process alone, and clocks differ.
        due, number = distributed.agree([is_due, stop.signal])
        if due or number:
            with stop.undisturbed():
                self._checkpoints.save(epochs_done, tree, diverged)
                distributed.on_first(lambda: mirror.publish(self._workdir))
            self._saved_at = time.monotonic()
        if number:
            raise Interrupted(number)

"""What `python -m mmer_jax.speech.train` can train, and what it asks of each."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict
from rich.console import Console

from mmer_jax.errors import UserError
from mmer_jax.speech.aitts_task import make_aitts_task
from mmer_jax.speech.batch import SpeechBatch
from mmer_jax.speech.dataset import SpeechData
from mmer_jax.speech.recogniser_task import RecogniserTask

Params = dict[str, Any]  # by network; each is clipped on its own


class Task(Protocol):
    """One model on one corpus.

    `loss` and `predict` see a single trial (a seed) and run inside jit; the engine maps them over
    the trials. `validate` runs on the host.

    Attributes:
      name: of its stage, in checkpoints and metrics.
      settings: `config.stages[name]`, as of `mmer_jax.config.stage`.
      facts: what else decides the result (fingerprints of inputs); a workdir is held to them.
    """

    name: str
    data: SpeechData
    settings: ConfigDict
    train_rows: np.ndarray
    dev_rows: np.ndarray
    facts: dict[str, object]

    def init(self, rng: Array) -> Params:
        """Fresh parameters of one trial."""

    def loss(
        self, params: Params, batch: SpeechBatch, rng: Array, epoch: Int[Array, ""]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """(mean loss over the rows that count, what is logged); `epoch` is 0-based."""

    def predict(self, params: Params, batch: SpeechBatch) -> Any:
        """Arrays [B, ...] that `validate` needs."""

    def validate(self, batches: Sequence[SpeechBatch], outputs: Sequence[Any]) -> dict[str, float]:
        """Scores on the dev rows; "validation_score" (higher is better) chooses the epoch."""

    def finish(self, workdir: Path, params: Params, console: Console) -> None:
        """What follows training: test scores, figures. Leaves of `params` are [T, ...]."""


TASKS: dict[str, Callable[[ConfigDict, Path, Console], Task]] = {
    "recogniser": RecogniserTask,
    "aitts": make_aitts_task,
}


def make_task(config: ConfigDict, workdir: Path, console: Console) -> Task:
    """The task of `config.method`, its corpus prepared."""
    if config.method not in TASKS:
        raise UserError(f"method is '{config.method}'; choose one of: {', '.join(TASKS)}")
    return TASKS[config.method](config, workdir, console)

"""Multimodal emotion recognition with missing or noisy modalities, in JAX and Flax.

import mmer_jax
model = mmer_jax.load("workdirs/ifmmin")
print(model.predict({"text": sequences, "audio": vectors}).labels)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmer_jax.predictor import Predictor

__version__ = "0.1.0"


def load(
    workdir: str | Path,
    *,
    folds: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
) -> Predictor:
    """The trained models of a workdir, as `mmer_jax.predictor.load`."""
    from mmer_jax import predictor  # so that importing the package imports nothing else

    return predictor.load(workdir, folds=folds, seeds=seeds)

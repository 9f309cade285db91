"""Reference files: inputs, weights and outputs of a released PyTorch network, sizes in `meta`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mmer_jax.errors import UserError

TOLERANCE = 1e-5
LOSS_TOLERANCE_FLOAT64 = 1e-7

Arrays = Mapping[str, np.ndarray]


class Difference(NamedTuple):
    quantity: str
    largest: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.largest <= self.tolerance  # False for NaN


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(meta, arrays) of a file; its floats in the precision that JAX computes with."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        meta = json.loads(str(arrays.pop("meta")))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is not a reference file: {error}") from None
    dtype = jnp.zeros(()).dtype  # float64 under JAX_ENABLE_X64
    return meta, {n: a.astype(dtype) if a.dtype.kind == "f" else a for n, a in arrays.items()}


def difference(quantity: str, ours, reference) -> Difference:
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    if ours.shape != reference.shape:
        raise UserError(f"{quantity} has shape {reference.shape} in the file, ours {ours.shape}")
    largest = float(np.max(np.abs(ours - reference), initial=0))
    tolerance = TOLERANCE
    if quantity.startswith("loss") and jnp.zeros(()).dtype == jnp.float64:
        # Of the value: the files hold float32 numbers, which lie 1.2e-7 apart between 1 and 2.
        tolerance = LOSS_TOLERANCE_FLOAT64 * max(1.0, float(np.max(np.abs(reference), initial=0)))
    return Difference(quantity, largest, tolerance)


def group(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, dict[str, np.ndarray]]:
    """{'A': {'rnn.bias': ...}} from the names 'prefix/A/rnn.bias'."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        if name.startswith(prefix + "/"):
            network, tensor = name[len(prefix) + 1 :].split("/", 1)
            found.setdefault(network, {})[tensor] = array
    return found

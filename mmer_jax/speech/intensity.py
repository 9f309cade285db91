"""From goodness of pronunciation to the intensity of an accent, 0 to 1, scaled per corpus."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from mmer_jax.errors import UserError
from mmer_jax.records import write_atomically

METHODS = ("quantile", "minmax")
EDGE = 0.1  # share of the phones at each end that count as 0 and as 1


@dataclasses.dataclass(frozen=True)
class IntensityScale:
    """Goodness `high` and above is intensity 0, `low` and below is 1; linear between."""

    low: float
    high: float
    method: str

    def intensity(self, goodness):
        """Of goodness in any shape, NumPy or JAX, in its kind."""
        module = np if isinstance(goodness, np.ndarray | float) else jnp
        return module.clip((self.high - goodness) / (self.high - self.low), 0.0, 1.0)

    def save(self, path: Path) -> None:
        write_atomically(path, json.dumps(dataclasses.asdict(self), indent=1) + "\n")


def fit(goodness: np.ndarray, method: str, quantile: float) -> IntensityScale:
    """The scale of a corpus.

    Args:
      goodness: of its phones, [n].
      method: "minmax", or "quantile", which a few outliers do not stretch.
      quantile: share of phones at each end that "quantile" lets go over the edge.
    """
    if method not in METHODS:
        raise UserError(f"intensity.scaling is '{method}'; choose one of: {', '.join(METHODS)}")
    edge = quantile if method == "quantile" else 0.0
    low, high = (float(x) for x in np.quantile(goodness, [edge, 1 - edge]))
    if not high > low:
        raise UserError(
            f"all phones have about the same goodness ({low:.3f}); an intensity needs both good "
            "and bad ones"
        )
    return IntensityScale(low, high, method)


def place(workdir: Path, seed: int = 0) -> Path:
    """Where a workdir keeps the scale of the recogniser of a seed."""
    return workdir / ("scaling.json" if seed == 0 else f"scaling_seed{seed}.json")


def load(path: Path) -> IntensityScale:
    """What `save` wrote."""
    try:
        scale = IntensityScale(**json.loads(path.read_text(encoding="utf-8")))
        if not float(scale.low) < float(scale.high):
            raise ValueError(f"low {scale.low} is not below high {scale.high}")
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is no scale of intensity: {error}") from None
    return scale

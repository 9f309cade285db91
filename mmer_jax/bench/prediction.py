"""What a prediction costs: `python -m mmer_jax.predict --workdir=W --benchmark`.

Features are random, of training's sizes, every modality present and every sequence as long as the
longest in training. Times are of `Predictor.predict`, from arrays on the host to arrays on the
host.
"""

import statistics
import time

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from mmer_jax.predictor import Predictor

BATCHES = (1, 256)
REPEATS = 50
Figures = dict[int, tuple[float, float]]


def measure(model: Predictor, repeats: int = REPEATS) -> Figures:
    """Batch size -> (median seconds of a call, seconds of the first call with compilation)."""
    figures = {}
    for size in BATCHES:
        features = _features(model, size)
        times = []
        for _ in range(repeats + 1):
            started = time.perf_counter()
            model.predict(features, batch_size=size)
            times.append(time.perf_counter() - started)
        figures[size] = (statistics.median(times[1:]), times[0])
    return figures


def show(console: Console, figures: Figures, n_members: int) -> None:
    """Print them as a table."""
    device = jax.devices()[0].device_kind
    table = Table(title=f"ensemble of {n_members} on {device}", title_justify="left")
    for name in ("batch", "ms a call", "utterances/s", "first call, s"):
        table.add_column(name, justify="right")
    for size, (seconds, first) in figures.items():
        table.add_row(str(size), f"{1e3 * seconds:.2f}", f"{size / seconds:,.0f}", f"{first:.1f}")
    console.print(table)


def _features(model: Predictor, size: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    shapes = {m.name: m.shape for m in model.modalities}
    return {
        name: list(rng.normal(size=(size, *shape)).astype(np.float32))
        for name, shape in shapes.items()
    }

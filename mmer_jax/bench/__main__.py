"""python -m mmer_jax.bench [--out=bench.json]: what a training step of IF-MMIN costs here.

At the original sizes (audio 60×130, text 22×1024, visual 50×342, batch 128, float32) it measures,
alternating in one run: the step that trains all six patterns, the step that trains one random
pattern per utterance, and the cold and warm compilation of a stage's epoch program.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from mmer_jax import mesh as mesh_lib
from mmer_jax.config import base, stage
from mmer_jax.data.corpus import Corpus
from mmer_jax.data.feed import Feed
from mmer_jax.data.synthetic import make_synthetic
from mmer_jax.methods import make_stages
from mmer_jax.programs import Programs, TrialData

BATCH = 128
STEPS = 4
# name: (dimension, longest sequence)
ORIGINAL = {"audio": (130, 60), "text": (1024, 22), "visual": (342, 50)}


def original_corpus(n_utterances: int) -> Corpus:
    """Noise in the sizes of the IF-MMIN release; every sequence has full length."""
    return make_synthetic(
        n_utterances=n_utterances,
        vector_dims=(),
        sequence_dims=tuple(ORIGINAL.values()),
        label="emotion",
    )


def original_config():
    """IF-MMIN as released; epochs and learning rate do not matter here."""
    c = base()
    c.model.update(cascade=(256, 128, 64), blocks=5, invariant_input=True)
    c.stages.utt_shared = stage(cmd_weight=1.0)
    c.stages.ifmmin = stage(
        b1=0.5, imagination_weight=1.0, invariance_weight=100.0, init_from_teacher=True
    )
    return c


class StepTimer:
    """An epoch of STEPS steps of IF-MMIN's second stage, ready to be run and timed."""

    def __init__(self, corpus: Corpus, n_trials: int, *, training: str):
        teacher, student = make_stages(original_config(), corpus.spec)
        mesh = mesh_lib.make_mesh(n_trials, BATCH)
        self.feed = Feed(corpus, mesh, placement="device", memory_budget=0)
        data = _trial_data(corpus, student.hyper, n_trials)
        earlier = {"utt_shared": Programs(teacher, corpus.spec, mesh).init(data.key, {}).params}
        self.programs = Programs(student, corpus.spec, mesh, training=training)
        self.data = self.programs.prepare(earlier, data, self.feed, BATCH, len(corpus))
        self.state = self.programs.init(data.key, earlier)
        rows = np.arange(STEPS * BATCH, dtype=np.int32) % len(corpus)
        self.rows = np.repeat(rows.reshape(STEPS, 1, BATCH), n_trials, axis=1)
        self.nothing = np.full((1, n_trials, BATCH), -1, np.int32)

    def epoch(self) -> float:
        """Seconds of one epoch; the first one compiles."""
        start = time.perf_counter()
        self.state, record = self.programs.train_epoch(
            self.state, self.data, self.feed, self.rows, self.nothing, 0
        )
        jax.block_until_ready((self.state, record))
        return time.perf_counter() - start


def _trial_data(corpus: Corpus, hyper, n_trials: int) -> TrialData:
    dims = {m.name: m.dim for m in corpus.spec.modalities}
    return TrialData(
        key=jax.random.split(jax.random.key(0), n_trials),
        mean={name: jnp.zeros((n_trials, dim)) for name, dim in dims.items()},
        std={name: jnp.ones((n_trials, dim)) for name, dim in dims.items()},
        label_mean=jnp.zeros(n_trials),
        label_std=jnp.ones(n_trials),
        clip=jnp.full(n_trials, jnp.inf),
        rate=jnp.zeros((n_trials, 2)),
        hyper={name: jnp.full(n_trials, value) for name, value in hyper.items()},
        frozen={},
        constants={},
    )


def measure(repeats: int) -> dict[str, float]:
    """The figures; times are medians over `repeats` alternating epochs."""
    jax.config.update("jax_compilation_cache_dir", tempfile.mkdtemp(prefix="mmer_bench_"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    corpus = original_corpus(STEPS * BATCH)
    timers = {
        "all_patterns": StepTimer(corpus, 1, training="all"),
        "one_pattern": StepTimer(corpus, 1, training="sample"),
    }
    figures = {f"{name}_cold_epoch_s": timer.epoch() for name, timer in timers.items()}
    jax.clear_caches()
    figures |= {f"{name}_warm_epoch_s": timer.epoch() for name, timer in timers.items()}
    times: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(repeats):
        for name, timer in timers.items():
            times[name].append(timer.epoch() / STEPS)
    for name, values in times.items():
        figures[f"{name}_step_ms"] = 1e3 * statistics.median(values)
        epoch = STEPS * figures[f"{name}_step_ms"] / 1e3
        for kind in ("cold", "warm"):
            figures[f"{name}_{kind}_compile_s"] = figures.pop(f"{name}_{kind}_epoch_s") - epoch
    figures["all_over_one"] = figures["all_patterns_step_ms"] / figures["one_pattern_step_ms"]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    figures = measure(args.repeats)
    device = jax.devices()[0]
    table = Table(title=f"IF-MMIN at the original sizes, batch {BATCH}, {device.device_kind}")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        table.add_row(name, f"{value:.2f}")
    Console().print(table)
    if args.out:
        args.out.write_text(json.dumps(figures | {"device": device.device_kind}, indent=2) + "\n")


if __name__ == "__main__":
    main()

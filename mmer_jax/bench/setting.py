"""IF-MMIN's second stage at the original sizes, ready to be run and timed."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from mmer_jax import mesh as mesh_lib
from mmer_jax.config import base, stage
from mmer_jax.data.corpus import Corpus
from mmer_jax.data.feed import Feed
from mmer_jax.data.synthetic import make_synthetic
from mmer_jax.data.units import Units, empty
from mmer_jax.methods import make_stages
from mmer_jax.programs import Programs, TrialData
from mmer_jax.trials import fill_up, stack_tables

BATCH = 128
STEPS = 4  # of a measured epoch
# name: (dimension, longest sequence)
ORIGINAL = {"audio": (130, 60), "text": (1024, 22), "visual": (342, 50)}


def original_corpus(n_utterances: int) -> Corpus:
    """Noise in the sizes of the IF-MMIN release."""
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


class Student:
    """The second stage over `n_trials` trials of a corpus that lies on the device.

    Args:
      corpus: of the sizes above.
      n_trials: on the trial axis.
      training: patterns in a step, as of `Programs`.
      batch: utterances in a step.
      data, devices: as of `make_mesh`.
    """

    def __init__(
        self,
        corpus: Corpus,
        n_trials: int,
        *,
        training: str = "all",
        batch: int = BATCH,
        data: int = 0,
        devices: int = 0,
    ):
        teacher, student = make_stages(original_config(), corpus.spec)
        self.mesh = mesh = mesh_lib.make_mesh(n_trials, batch, data, devices)
        n_trials = mesh_lib.padded_count(n_trials, mesh)  # as the engine does
        self.feed = Feed(corpus, mesh, placement="device", memory_budget=0)
        given = _trial_data(corpus, student.hyper, n_trials)
        earlier = {"utt_shared": Programs(teacher, corpus.spec, mesh).init(given.key, {}).params}
        self.programs = Programs(student, corpus.spec, mesh, training=training)
        everything = stack_tables([fill_up(units_of(np.arange(len(corpus))), batch)] * n_trials)
        trained = np.ones((n_trials, len(corpus)), bool)
        self.data = self.programs.prepare(earlier, given, self.feed, everything, trained)
        self.state = self.programs.init(given.key, earlier)
        rows = np.arange(STEPS * batch) % len(corpus)
        self.units = stack_tables([fill_up(units_of(rows), batch)] * n_trials)
        self.nothing = empty(1, n_trials, batch, 1)

    def epoch(self, feed: Feed | None = None, units: Units | None = None) -> float:
        """Seconds of STEPS training steps of every trial; the first call compiles.

        Or of the steps of `units` [S, T, B, 1], from another feed of the same corpus.
        """
        start = time.perf_counter()
        self.state, record = self.programs.train_epoch(
            self.state, self.data, feed or self.feed, units or self.units, self.nothing, 0
        )
        jax.block_until_ready((self.state, record))
        return time.perf_counter() - start

    def predict(self, patterns: np.ndarray) -> float:
        """Seconds to predict STEPS batches under `patterns` [K, M]."""
        start = time.perf_counter()
        self.programs.predict(self.state.params, self.data, self.feed, self.units, patterns)
        return time.perf_counter() - start

    def owned_bytes(self) -> int:
        """What belongs to the trials: parameters, optimiser, best parameters, teacher tensors."""
        data = self.data._replace(key=None)
        return sum(leaf.nbytes for leaf in jax.tree.leaves((self.state, data)))

    def compiled(self, steps: int = STEPS):
        """The program of so many steps, for its counts of FLOPs and bytes.

        XLA counts the FLOPs of a loop's body once: ask for one step.
        """
        (train,), (validation,) = (
            self.feed.pieces(Units(*(x[:steps] for x in self.units))),
            self.feed.pieces(self.nothing),
        )
        return self.programs.lower_epoch(self.state, self.data, train, validation).compile()


def units_of(rows: np.ndarray) -> Units:
    """Utterances that count, each a unit of its own."""
    return Units(rows.astype(np.int32)[:, None], np.ones((len(rows), 1), bool))


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

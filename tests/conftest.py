"""Eight fake devices, strict numerics and the compilation cache, before anything imports jax."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_NUM_CPU_DEVICES"] = "8"

import jax
import pytest
from places import CACHE, ROOT

jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Compiling is most of what these tests do; the programs they run are tiny.
jax.config.update("jax_disable_most_optimizations", True)
# jax_numpy_dtype_promotion stays "standard": optax's bias correction takes a float to an integer.

from jaxtyping import install_import_hook

with install_import_hook(
    ["mmer_jax.losses", "mmer_jax.nn", "mmer_jax.metrics"], "beartype.beartype"
):
    import mmer_jax.losses
    import mmer_jax.metrics
    import mmer_jax.nn.cascade
    import mmer_jax.nn.encoders
    import mmer_jax.nn.heads
    import mmer_jax.nn.recurrence  # noqa: F401

from mmer_jax.data.synthetic import make_synthetic


@pytest.fixture(scope="session")
def corpus():
    """Three modalities (audio and text sequences, a visual vector), 5 sessions, 4 classes."""
    return make_synthetic(n_utterances=240, sequence_dims=((7, 6), (5, 8)), vector_dims=(6,))


@pytest.fixture(scope="session")
def reference_dir():
    """Reference values of the released networks, small sizes."""
    return ROOT / "tests" / "reference"

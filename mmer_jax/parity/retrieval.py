"""RAMER's retrieval against its reference values: neighbours and filled slots of every pattern."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mmer_jax.config import base, stage
from mmer_jax.data.corpus import CorpusSpec, Modality, Task
from mmer_jax.methods.ramer import RAMER
from mmer_jax.methods.stage import OTHER, Batch
from mmer_jax.parity.reference import Difference, difference


def compare_ramer_retrieval(meta, arrays) -> Iterator[Difference]:
    letters = [name.removeprefix("input/db_") for name in arrays if name.startswith("input/db_")]
    hidden, database = (
        jnp.stack([jnp.asarray(arrays[f"input/{kind}_{m}"]) for m in letters], axis=1)
        for kind in ("query", "db")
    )
    model = _model(meta, letters, hidden.shape[-1])
    patterns = sorted({name.split("/")[1] for name in arrays if name.startswith("output/")})
    available = np.array([[m in pattern for m in letters] for pattern in patterns])
    batch = _batch(hidden, database, available)
    batch = batch._replace(frozen=batch.frozen | jax.jit(model.relate)(batch))
    neighbours = model.chosen(batch)
    fills = jax.jit(model.retrieved)(batch)
    for number, pattern in enumerate(patterns):
        key = f"output/{pattern}/neighbours"
        yield difference(key, neighbours[number], arrays[key])
        for i, m in enumerate(letters):
            key = f"output/{pattern}/fill_{m}"
            if key in arrays:
                yield difference(key, fills[number, :, i], arrays[key])


def _model(meta, letters, size: int) -> RAMER:
    config = base()
    config.model.embedding = size
    config.model.transformer = ConfigDict({"layers": 1, "heads": 1, "feedforward": 1})
    config.model.retrieval = "nearest"
    config.model.neighbours = meta["k"] - meta["drop_first"]
    config.quirks.drop_first = meta["drop_first"]
    config.quirks.normalize_query = meta["normalize_query"]
    config.stages.ramer = stage(refresh_epochs=0)
    return RAMER(
        config, CorpusSpec(tuple(Modality(m, size) for m in letters), (Task("label", ("0", "1")),))
    )


def _batch(hidden, database, available: np.ndarray) -> Batch:
    n, n_modalities, _ = hidden.shape
    rows = jnp.full(len(database), OTHER)
    return Batch(
        features={},
        lengths={},
        present=jnp.ones((n, n_modalities), bool),
        labels=jnp.zeros((n, 1), jnp.int32),
        weights=jnp.ones(n),
        turns=jnp.ones((n, 1), bool),
        available=jnp.broadcast_to(available[:, None], (len(available), n, n_modalities)),
        patterns=None,
        noisy=None,
        frozen={"hidden": hidden},
        constants={
            "database": {
                "hidden": database,
                "present": jnp.ones((len(database), n_modalities), bool),
                "row": rows,
            }
        },
        rows=jnp.full(n, -1),
    )

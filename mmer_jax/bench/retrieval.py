"""Nearest neighbours against faiss's flat index: the same rows, the same machine, in turn."""

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from mmer_jax.retrieval import SCORINGS, top_k

SIZES = (115_000, 256, 5_000, 6)  # rows, dimension, queries, neighbours: RAMER's larger database
Figures = dict[str, float]


def measure(repeats: int) -> Figures:
    """Median seconds of a search, and which rows differ from faiss's (extra `bench`)."""
    n_rows, dim, n_queries, k = SIZES
    rng = np.random.default_rng(0)
    database = rng.normal(size=(n_rows, dim)).astype(np.float32)
    queries = rng.normal(size=(n_queries, dim)).astype(np.float32)
    on_device = jnp.asarray(queries), jnp.asarray(database)
    ours = {
        f"search_{metric}_{scoring}": functools.partial(_search, metric, scoring, k, *on_device)
        for metric, scoring in (*(("inner", s) for s in SCORINGS), ("l2", "float32"))
    }
    theirs = _faiss(queries, database, k)
    searches = ours | theirs
    found = {name: np.asarray(search()) for name, search in searches.items()}  # compiles
    times: dict[str, list[float]] = {name: [] for name in searches}
    for _ in range(repeats):
        for name, search in searches.items():
            start = time.perf_counter()
            jax.block_until_ready(search())
            times[name].append(time.perf_counter() - start)
    figures = {f"{name}_s": statistics.median(values) for name, values in times.items()}
    for name in ours:
        index = "faiss_l2" if "l2" in name else "faiss_inner"
        if index in theirs:
            figures[f"{name}_over_faiss"] = figures[f"{name}_s"] / figures[f"{index}_s"]
            figures[f"{name}_other_rows"] = float((found[name] != found[index]).sum())
    program = _search.lower("inner", "float32", k, *on_device).compile()
    used: Any = program.memory_analysis()
    figures["search_mib"] = used.temp_size_in_bytes / 2**20
    return figures


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _search(metric: str, scoring: str, k: int, queries, database):
    return top_k(queries, database, k, metric=metric, scoring=scoring).rows


def _faiss(queries, database, k: int) -> dict[str, Callable]:
    try:
        import faiss
    except ImportError:
        Console(stderr=True).print("no faiss here (extra `bench`): no comparison with it")
        return {}
    indices = {
        "faiss_inner": faiss.IndexFlatIP(database.shape[1]),
        "faiss_l2": faiss.IndexFlatL2(database.shape[1]),
    }
    for index in indices.values():
        index.add(database)
    return {name: lambda i=index: i.search(queries, k)[1] for name, index in indices.items()}

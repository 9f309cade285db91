"""Exact neighbours: against brute force in float64, in any blocks, on any number of devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax import retrieval
from mmer_jax.mesh import make_mesh
from mmer_jax.retrieval import METRICS, SCORINGS, TopK, sharded_top_k, top_k

HOW = ("metric", "scoring", "query_block", "row_block")
search = jax.jit(top_k, static_argnums=2, static_argnames=HOW)


def data(n_queries=37, n_rows=333, dim=24, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n_rows, dim)).astype(np.float32) * rng.uniform(0.5, 2, (n_rows, 1))
    return rng.normal(size=(n_queries, dim)).astype(np.float32), rows.astype(np.float32)


def brute_force(queries, database, k, metric, exclude=None, valid=None):
    """(scores, rows), in float64 and by a stable sort."""
    q, x = queries.astype(np.float64), database.astype(np.float64)
    if metric == "cosine":
        q, x = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-30) for v in (q, x))
    q, x = q[:, None], x[None]  # no product of matrices, in which equal rows may differ by a bit
    scores = -((q - x) ** 2).sum(-1) if metric == "l2" else (q * x).sum(-1)
    if valid is not None:
        scores[:, ~valid] = -np.inf
    for i, row in enumerate(exclude if exclude is not None else []):
        if row >= 0:
            scores[i, row] = -np.inf
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(scores, rows, axis=1)
    missing = ((0, 0), (0, k - rows.shape[1]))
    best = np.pad(best, missing, constant_values=-np.inf)
    rows = np.where(best > -np.inf, np.pad(rows, missing, constant_values=-1), -1)
    return best, rows


def assert_equal(found: TopK, expected):
    np.testing.assert_array_equal(found.rows, expected[1])
    np.testing.assert_allclose(found.scores, expected[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scoring", SCORINGS)
def test_the_rows_of_brute_force(metric, scoring):
    """Blocks that do not divide, excluded rows, rows that may not be found."""
    queries, rows = data()
    rng = np.random.default_rng(1)
    valid = rng.random(len(rows)) < 0.7
    nearest = brute_force(queries, rows, 1, metric, valid=valid)[1][:, 0]
    exclude = np.where(rng.random(len(queries)) < 0.5, nearest, -1)
    how = {"metric": metric, "scoring": scoring, "query_block": 16, "row_block": 96}
    found = search(queries, rows, 6, exclude=exclude, valid=valid, **how)
    assert_equal(found, brute_force(queries, rows, 6, metric, exclude, valid))
    # Equal rows come in order: copies all over, more of them than k and than candidate groups.
    copies = rng.permutation(len(rows))[:200]
    rows[copies] = queries[3]
    exclude[3], valid = copies.min(), np.ones(len(rows), bool)
    found = search(queries, rows, 6, exclude=exclude, valid=valid, **how)
    assert_equal(found, brute_force(queries, rows, 6, metric, exclude, valid))
    if metric != "inner":
        np.testing.assert_array_equal(found.rows[3], np.sort(copies)[1:7])


@pytest.mark.parametrize("n_rows", [3, 17, 96, 97, 193])
def test_any_number_of_rows(n_rows):
    """Fewer than k, than a group, than a block; one more than a block."""
    queries, rows = data(200, n_rows)
    found = search(queries, rows, 6, metric="inner", query_block=None, row_block=96)
    assert_equal(found, brute_force(queries, rows, 6, "inner"))
    assert (np.asarray(found.rows == -1).sum(axis=1) == max(0, 6 - n_rows)).all()


def test_nothing_to_find():
    queries, rows = data(3, 40)
    found = search(queries, rows, 2, valid=np.zeros(40, bool))
    assert (np.asarray(found.rows) == -1).all() and np.isneginf(found.scores).all()
    alone = search(queries[:1], rows[:1], 2, exclude=np.zeros(1, int))
    assert (np.asarray(alone.rows) == -1).all()


def test_zero_vectors_have_cosine_0():
    queries, rows = data(2, 50)
    queries[0], rows[7] = 0, 0
    found = search(queries, rows, 50, metric="cosine")
    np.testing.assert_array_equal(found.rows[0], np.arange(50))
    assert (np.asarray(found.scores[0]) == 0).all()
    place = int(np.flatnonzero(np.asarray(found.rows[1]) == 7)[0])
    assert found.scores[1, place] == 0


def test_what_codes_cannot_prove_is_searched_again(monkeypatch):
    """The best row has the worst code, and the scores of the others look safe without a bound."""
    rows = np.zeros((3000, 32), np.float32)
    rows[:, 0] = 127  # int8 rounds to whole numbers
    rows[:, 1:11], rows[:, 11:] = 1, 0.3  # 16.3, by its code 10
    rows[-1, 1:6], rows[-1, 6:] = 1, 0.49  # 17.7, by its code 5
    queries = np.ones((1, 32), np.float32)
    queries[0, 0] = 0

    def best():
        jax.clear_caches()
        return int(search(queries, rows, 1, metric="inner", scoring="int8").rows[0, 0])

    assert best() == 2999
    certain = retrieval._certain

    def without_bound(index, *given):
        return certain(index._replace(error=0.0, radius=0.0), *given)

    monkeypatch.setattr(retrieval, "_certain", without_bound)
    assert best() == 0


def test_the_error_of_codes_is_within_its_bound():
    _, rows = data(1, 200, 40, seed=5)
    for scoring in ("bfloat16", "int8"):
        codes, scale, error = retrieval._encode(jnp.asarray(rows), scoring)
        off = rows - np.asarray(codes, np.float64) * np.asarray(scale)[:, None]
        np.testing.assert_allclose(np.linalg.norm(off, axis=1), error, rtol=1e-3)


def test_under_vmap():
    queries, rows = data(20, 100)
    many = np.stack([rows, rows[::-1]])
    how = functools.partial(top_k, k=4, metric="l2", row_block=32)
    found = jax.jit(jax.vmap(how, in_axes=(None, 0)))(queries, many)
    for i in range(2):
        assert_equal(
            jax.tree.map(lambda x, i=i: x[i], found), brute_force(queries, many[i], 4, "l2")
        )


@pytest.mark.parametrize("n_rows", [5, 203])
def test_any_number_of_devices_gives_the_same(n_rows):
    queries, rows = data(11, n_rows)
    rows[n_rows // 2] = rows[0]  # a tie between devices
    valid = np.ones(n_rows, bool)
    valid[2] = False
    exclude = np.arange(11) % n_rows
    how = {"metric": "cosine", "row_block": 16}
    mesh = make_mesh(1, 8, data=8)
    sharded = jax.jit(functools.partial(sharded_top_k, k=6, mesh=mesh, **how))
    found = sharded(queries, rows, exclude=exclude, valid=valid)
    one = search(queries, rows, 6, exclude=exclude, valid=valid, **how)
    assert_equal(found, (one.scores, one.rows))
    assert_equal(found, brute_force(queries, rows, 6, "cosine", exclude, valid))


def test_memory_does_not_grow_with_the_database():
    def temporaries(n_rows):
        shapes = jnp.zeros((512, 32)), jnp.zeros((n_rows, 32))
        lowered = search.lower(*shapes, 5, metric="inner", query_block=128, row_block=256)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    small, large = temporaries(4096), temporaries(8 * 4096)
    assert large - small < 8 * 4 * 7 * 4096  # some numbers a row; a row alone is 32


def test_unknown_names():
    queries, rows = data(2, 20)
    with pytest.raises(ValueError, match="manhattan"):
        top_k(queries, rows, 2, metric="manhattan")

"""The rows that an utterance is trained on: golden lists and what must hold of any."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mmer_jax.methods.curriculum import closest, curriculum, cut, line_up, union

K = 3
NEAREST = jnp.array([[4, 1, 2, 3], [4, 2, 5, 6], [4, 9, 1, 8]])  # of three modalities


def test_union_joins_modality_by_modality_without_repeats():
    found = union(NEAREST, jnp.array([True, True, True]))
    assert found.tolist() == [4, 1, 2, 3, 5, 6, 9, 8, -1, -1, -1, -1]
    found = union(NEAREST, jnp.array([False, True, True]))
    assert found.tolist() == [4, 2, 5, 6, 9, 1, 8] + [-1] * 5
    assert union(NEAREST, jnp.zeros(3, bool)).tolist() == [-1] * 12


def test_the_harder_the_more():
    rows = jnp.arange(8)
    for hardness, count in ((0.1, 2), (0.5, 3), (0.66, 3), (0.67, 4), (0.98, 4), (1.0, 5)):
        assert cut(rows, jnp.float32(hardness), K).tolist() == [*range(count)] + [-1] * (8 - count)


def test_the_least_distant_stay_in_their_order():
    rows = jnp.array([4, 1, 2, 3, 5, 6, -1])
    far = jnp.array([0.0, 3.0, 9.0, 1.0, 2.0, 2.0, 0.0])
    assert closest(rows, far, K).tolist() == [4, 1, 3, 5, 6]
    assert closest(rows, far, 1).tolist() == [4, 3, 5]  # of equal distances the earlier row


def test_what_is_lacking_is_the_first():
    assert line_up(jnp.array([4, 1, 3, -1, -1]), K).tolist() == [4, 4, 1, 3]
    assert line_up(jnp.array([4, -1, -1, -1, -1]), K).tolist() == [4] * 4
    assert line_up(jnp.array([4, 1, 3, 5, 6]), K).tolist() == [4, 1, 3, 5]


BUILD = jax.jit(curriculum, static_argnums=3)


@given(st.integers(0, 2**31), st.integers(1, 9))
@settings(max_examples=50, deadline=None)
def test_a_curriculum_is_the_utterance_and_neighbours_of_what_it_has(seed, n_rows):
    """Any database, also one smaller than K + 1."""
    rng = np.random.default_rng(seed)
    own, others = 0, np.arange(1, n_rows)
    nearest = np.full((3, K + 1), -1)
    for row in nearest:
        found = rng.permutation(others)[:K]
        row[: 1 + len(found)] = [own, *found]
    available = rng.random(3) < 0.6
    available[rng.integers(3)] = True
    hardness = rng.random(dtype=np.float32)
    found = np.asarray(BUILD(nearest, available, hardness, K))
    assert found.shape == (K + 1,) and found[0] == own
    reachable = {int(row) for m in np.flatnonzero(available) for row in nearest[m]} - {-1}
    assert set(found.tolist()) <= reachable
    others = found[found != own]
    assert len(set(others.tolist())) == len(others) <= int(np.floor(K * hardness + 1))


def test_hardness_leaves_no_more_than_the_closest_would():
    rows, distances = jnp.arange(20), -jnp.arange(20.0)
    for k in (1, 3, 8):
        for hardness in (0.0, 0.5, 0.99):
            left = cut(rows, jnp.float32(hardness), k)
            assert closest(left, distances, k)[: k + 1].tolist() == left[: k + 1].tolist()


def test_it_compiles_for_any_leading_axes():
    def one(nearest, hardness):
        available = jnp.array([True, False, True])
        return curriculum(nearest, available, hardness, K)

    batch = jnp.broadcast_to(NEAREST, (2, 5, 3, 4))
    hardness = jnp.linspace(0.1, 0.9, 10).reshape(2, 5)
    together = jax.jit(jax.vmap(jax.vmap(one)))(batch, hardness)
    assert together.shape == (2, 5, K + 1)
    assert together[1, 1].tolist() == one(NEAREST, hardness[1, 1]).tolist()

"""The order of an epoch under a bounded buffer: every unit once, never far from its fellows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmer_jax.data.shuffle import BLOCKS, shuffled
from mmer_jax.data.units import Units
from mmer_jax.trials import epoch_order


def utterances(rows):
    rows = np.asarray(rows, np.int32)[:, None]
    return Units(rows, rows >= 0)


def order(units, buffer, seed=0):
    return shuffled(units, np.random.default_rng(seed), buffer)


@given(st.integers(1, 300), st.integers(0, 320), st.integers(0, 3))
def test_every_unit_comes_once(n, buffer, seed):
    units = utterances(np.random.default_rng(seed).permutation(3 * n)[:n])
    found = order(units, buffer, seed)
    np.testing.assert_array_equal(np.sort(found), np.arange(n))
    np.testing.assert_array_equal(found, order(units, buffer, seed))


@given(st.integers(2, 400), st.integers(1, 100))
def test_one_filling_of_the_buffer_is_a_few_runs_of_neighbours(n, buffer):
    """What is read meanwhile: at most BLOCKS blocks and the two that are cut."""
    found = order(utterances(np.arange(n)), buffer)
    block = -(-min(buffer, n) // BLOCKS)
    for start in range(0, n, buffer):
        touched = np.unique(found[start : start + buffer] // block)
        assert len(touched) <= BLOCKS + 2 or buffer >= n


def test_a_buffer_of_everything_is_no_buffer():
    units = utterances(np.arange(100))
    np.testing.assert_array_equal(order(units, 100), order(units, 0))
    np.testing.assert_array_equal(order(units, 10**6), order(units, 0))
    assert (order(units, 99) != order(units, 0)).any()


def test_epochs_differ_in_what_meets():
    """Not the same blocks in every epoch's buffer."""
    units = utterances(np.arange(1000))
    first, second = (set(order(units, 100, seed)[:100]) for seed in (0, 1))
    assert len(first & second) < 50
    blocks = {tuple(sorted({row // 13 for row in order(units, 100, s)[:100]})) for s in range(5)}
    assert len(blocks) == 5


def test_dialogues_stand_where_their_first_row_does_and_stay_whole():
    rows = np.full((60, 4), -1, np.int32)
    rows[:, :3] = np.random.default_rng(0).permutation(180).reshape(60, 3)[:, ::-1]
    units = Units(rows, rows >= 0)
    found = order(units, 3 * 16)  # 16 dialogues of three utterances
    first = rows[:, :3].min(axis=1)
    in_file_order = np.argsort(first)
    place = np.argsort(in_file_order)
    for start in range(0, 60, 16):
        blocks = np.unique(place[found[start : start + 16]] // 2)
        assert len(blocks) <= BLOCKS + 2
    tables = epoch_order(units, 8, seed=0, epoch=0, shuffle_buffer=48)
    np.testing.assert_array_equal(
        np.sort(tables.rows.reshape(-1, 4)[:60], axis=0), np.sort(rows, axis=0)
    )
    assert {tuple(r) for r in tables.rows.reshape(-1, 4)[:60]} == {tuple(r) for r in rows}


@given(st.integers(1, 60), st.integers(1, 16), st.integers(0, 5), st.integers(0, 40))
def test_an_epoch_is_a_function_of_seed_epoch_and_buffer(n, batch, epoch, buffer):
    units = utterances(np.arange(n))
    tables = [
        epoch_order(units, batch, seed=7, epoch=epoch, shuffle_buffer=buffer) for _ in range(2)
    ]
    np.testing.assert_array_equal(tables[0].rows, tables[1].rows)
    np.testing.assert_array_equal(np.sort(tables[0].rows[tables[0].counted]), np.arange(n))

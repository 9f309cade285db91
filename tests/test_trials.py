"""Trials and the order of rows: functions of seed and epoch alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmer_jax.config import base, stage
from mmer_jax.data.units import Units
from mmer_jax.errors import UserError
from mmer_jax.sweep import Point, single_point
from mmer_jax.trials import (
    Trial,
    epoch_order,
    fill_up,
    make_groups,
    make_trials,
    pending_groups,
    stack_tables,
)


def config(**settings):
    c = base()
    c.stages.one = stage(**settings)
    return c


POINT = single_point(config())[0]


def trials(folds, seeds=1):
    c = config()
    c.trials.folds, c.trials.seeds = folds, seeds
    return make_trials(single_point(c), 5)


@pytest.mark.parametrize("folds", [[1, 3], (1, 3), "[1, 3]", "1,3", "(1,3)"])
def test_folds_can_be_listed(folds):
    assert [(t.fold, t.seed) for t in trials(folds, 2)] == [(1, 0), (1, 1), (3, 0), (3, 1)]


@pytest.mark.parametrize("folds", ["some", [5], [1, 1], [], "{", None])
def test_other_folds_are_refused(folds):
    with pytest.raises(UserError, match="from 0 to 4"):
        trials(folds)


@given(st.integers(1, 40), st.integers(0, 12))
def test_groups_hold_every_trial_once(n, limit):
    everyone = [Trial(POINT, i, 0) for i in range(n)]
    groups = make_groups(everyone, limit)
    assert [t for group in groups for t in group.trials] == everyone
    assert max(len(g.trials) for g in groups) == groups[0].width <= (limit or n)
    assert len({g.width for g in groups}) == 1 and len({g.name for g in groups}) == len(groups)


def test_points_that_share_shapes_share_a_program():
    points = [
        Point(i, {"n": i}, config(**changes))
        for i, changes in enumerate(
            [{"learning_rate": 0.1}, {"dropout": 0.1}, {"batch_size": 3}, {"cmd_weight": 2.0}]
        )
    ]
    points[0].config.stages.one.cmd_weight = 1.0
    points[1].config.stages.one.cmd_weight = 1.0
    points[2].config.stages.one.cmd_weight = 1.0
    groups = make_groups([Trial(p, f, 0) for p in points for f in (0, 1)], 0)
    assert [[t.point.number for t in g.trials] for g in groups] == [[0, 0, 1, 1, 3, 3], [2, 2]]


@given(st.integers(1, 40), st.integers(1, 12), st.data())
def test_after_any_interruption_the_groups_that_are_left_are_the_planned_ones(n, limit, data):
    """So that a trial keeps its neighbours, and its numbers to the last bit."""
    groups = make_groups([Trial(POINT, i, 0) for i in range(n)], limit)
    finished = data.draw(st.integers(0, len(groups)))
    done = {t.key for g in groups[:finished] for t in g.trials}
    begun = [[t.key for t in g.trials] for g in groups[finished : finished + 1]]
    assert pending_groups(groups, done, begun) == groups[finished:]


def test_trials_that_were_added_later_train_alone():
    before = make_groups([Trial(POINT, f, 0) for f in range(4)], 10)
    now = make_groups([Trial(POINT, f, s) for f in range(4) for s in (0, 1)], 10)
    left = pending_groups(now, {t.key for t in before[0].trials}, [])
    assert [[(t.fold, t.seed) for t in g.trials] for g in left] == [[(f, 1) for f in range(4)]]
    assert left[0].width == 8


def test_a_checkpoint_of_trials_that_are_no_longer_asked_for_is_left_alone():
    groups = make_groups([Trial(POINT, f, 0) for f in (0, 1)], 10)
    begun = [[Trial(POINT, f, 0).key for f in (0, 1, 2)]]
    assert pending_groups(groups, set(), begun) == groups


def test_a_checkpoint_of_a_wider_group_is_used_unless_smaller_groups_are_asked_for():
    """Begun on a GPU with all trials side by side, resumed on a CPU; or out of memory."""
    trials = [Trial(POINT, f, 0) for f in range(6)]
    begun = [[t.key for t in trials]]
    groups = make_groups(trials, 2)
    (together,) = pending_groups(groups, set(), begun)
    assert together.trials == tuple(trials) and together.width == 6
    assert pending_groups(groups, set(), begun, max_parallel=2) == groups


@given(st.integers(1, 40), st.integers(1, 12), st.data())
def test_workers_who_look_at_different_times_cut_alike(n, limit, data):
    groups = make_groups([Trial(POINT, i, 0) for i in range(n)], limit)
    keys = [t.key for g in groups for t in g.trials]
    done = set(data.draw(st.lists(st.sampled_from(keys))))
    early = pending_groups(groups, done, [], keep_cuts=True)
    ended = data.draw(st.sampled_from(early)) if early else None
    mine = {t.key for t in ended.trials} if ended else set()
    late = pending_groups(groups, done | mine, [], keep_cuts=True)
    assert late == [group for group in early if group is not ended]
    assert sorted(t.key for g in early for t in g.trials) == sorted(set(keys) - done)


def test_workers_go_on_with_a_checkpoint_of_another_cut():
    trials = [Trial(POINT, f, 0) for f in range(6)]
    begun = [[t.key for t in trials[1:4]]]
    left = pending_groups(make_groups(trials, 3), set(), begun, keep_cuts=True)
    assert [[t.fold for t in g.trials] for g in left] == [[1, 2, 3], [0], [4, 5]]
    assert {g.width for g in left} == {3}


def units(rows):
    """Utterances that count."""
    rows = np.asarray(rows, np.int32)[:, None]
    return Units(rows, rows >= 0)


@given(st.integers(1, 50), st.integers(1, 16), st.integers(0, 5))
def test_an_epoch_holds_every_row_once(n, batch, epoch):
    rows = np.arange(n) * 3
    order = epoch_order(units(rows), batch, seed=7, epoch=epoch)
    assert order.rows.shape == order.counted.shape == (-(-n // batch), batch, 1)
    np.testing.assert_array_equal(np.sort(order.rows[order.counted]), rows)
    assert (order.rows[~order.counted] == -1).all()
    again = epoch_order(units(rows), batch, seed=7, epoch=epoch)
    np.testing.assert_array_equal(order.rows, again.rows)


def test_epochs_and_seeds_differ_in_order():
    rows = units(np.arange(50))
    orders = [epoch_order(rows, 8, seed=s, epoch=e).rows for s in (0, 1) for e in (0, 1)]
    assert all((a != b).any() for i, a in enumerate(orders) for b in orders[:i])


def test_what_counts_stays_with_its_rows():
    mixed = Units(
        np.arange(40, dtype=np.int32).reshape(10, 4), np.arange(40).reshape(10, 4) % 3 == 0
    )
    order = epoch_order(mixed, 4, seed=0, epoch=0)
    np.testing.assert_array_equal(order.counted, (order.rows % 3 == 0) & (order.rows >= 0))


def test_shorter_trials_wait_at_the_end():
    long, short = fill_up(units([5] * 6), 2), fill_up(units([6] * 2), 2)
    stacked = stack_tables([long, short])
    assert stacked.rows.shape == stacked.counted.shape == (3, 2, 2, 1)
    assert stacked.rows[:, 1, :, 0].tolist() == [[6, 6], [-1, -1], [-1, -1]]
    assert stacked.counted[:, 1, :, 0].tolist() == [[True] * 2, [False] * 2, [False] * 2]

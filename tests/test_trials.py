"""Trials and the order of rows: functions of seed and epoch alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from mmer_jax.errors import UserError
from mmer_jax.trials import Trial, epoch_order, make_groups, make_trials, stack_tables


def trials(folds, seeds=1):
    return make_trials(ConfigDict({"trials": {"folds": folds, "seeds": seeds}}), 5)


@pytest.mark.parametrize("folds", [[1, 3], (1, 3), "[1, 3]", "1,3", "(1,3)"])
def test_folds_can_be_listed(folds):
    assert trials(folds, 2) == [Trial(1, 0), Trial(1, 1), Trial(3, 0), Trial(3, 1)]


@pytest.mark.parametrize("folds", ["some", [5], [1, 1], [], "{", None])
def test_other_folds_are_refused(folds):
    with pytest.raises(UserError, match="from 0 to 4"):
        trials(folds)


@given(st.integers(1, 40), st.integers(0, 12))
def test_groups_hold_every_trial_once(n, limit):
    everyone = [Trial(i, 0) for i in range(n)]
    groups = make_groups(everyone, limit)
    assert [t for group in groups for t in group] == everyone
    assert max(map(len, groups)) <= (limit or n)


@given(st.integers(1, 50), st.integers(1, 16), st.integers(0, 5))
def test_an_epoch_holds_every_row_once(n, batch, epoch):
    rows = np.arange(n) * 3
    order = epoch_order(rows, batch, seed=7, epoch=epoch)
    assert order.shape == (-(-n // batch), batch)
    np.testing.assert_array_equal(np.sort(order[order >= 0]), rows)
    np.testing.assert_array_equal(order, epoch_order(rows, batch, seed=7, epoch=epoch))


def test_epochs_and_seeds_differ_in_order():
    rows = np.arange(50)
    orders = [epoch_order(rows, 8, seed=s, epoch=e) for s in (0, 1) for e in (0, 1)]
    assert all((a != b).any() for i, a in enumerate(orders) for b in orders[:i])


def test_shorter_trials_wait_at_the_end():
    stacked = stack_tables([np.full((3, 2), 5, np.int32), np.full((1, 2), 6, np.int32)])
    assert stacked.shape == (3, 2, 2)
    assert stacked[:, 1].tolist() == [[6, 6], [-1, -1], [-1, -1]]

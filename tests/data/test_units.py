"""Units of training: what belongs together, what counts and what is context."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmer_jax.data.splits import make_folds
from mmer_jax.data.units import group_turns, make_grouping
from mmer_jax.errors import UserError

IDS = np.array([f"u{i}" for i in range(6)])
DIALOGUES = np.array(["b", "a", "b", "a", "c", "b"])
TURNS = np.array(["10", "1", "9", "0.5", "0", "-1"])


def test_dialogues_are_rows_in_the_order_of_turns():
    table = group_turns(DIALOGUES, TURNS, IDS).table
    assert table.tolist() == [[3, 1, -1], [5, 2, 0], [4, -1, -1]]


def test_what_is_neither_counted_nor_context_is_not_there():
    grouping = group_turns(DIALOGUES, TURNS, IDS)
    units = grouping.units(np.array([0, 1]), np.array([5, 4]))
    assert units.rows.tolist() == [[1, -1, -1], [5, 0, -1]]
    assert units.counted.tolist() == [[True, False, False], [False, True, False]]


def test_a_dialogue_without_a_row_that_counts_is_no_unit():
    assert len(group_turns(DIALOGUES, TURNS, IDS).units(np.array([4]), np.arange(6))) == 1


@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 2**31))
def test_every_row_stands_in_one_place(n, n_dialogues, seed):
    rng = np.random.default_rng(seed)
    names = rng.integers(n_dialogues, size=n).astype(str)
    turns = rng.permutation(n)
    grouping = group_turns(names, turns, np.arange(n))
    assert sorted(grouping.table[grouping.table >= 0]) == list(range(n))
    counted = np.flatnonzero(rng.random(n) < 0.5)
    context = np.flatnonzero(rng.random(n) < 0.5)
    units = grouping.units(counted, context)
    assert sorted(units.rows[units.counted]) == sorted(counted)
    others = units.rows[(units.rows >= 0) & ~units.counted]
    assert set(others) <= set(context) - set(counted)
    for rows in units.rows:
        there = rows[rows >= 0]
        assert (rows[: len(there)] >= 0).all()
        assert len(set(names[there])) == 1 and (np.diff(turns[there]) > 0).all()


def test_an_utterance_is_a_unit_of_its_own(corpus):
    for grouping in (
        make_grouping(corpus, "utterance"),
        make_grouping(corpus, "dialogue", dialogues="none"),
    ):
        assert grouping.length == 1
        units = grouping.units(np.array([3, 9]), np.arange(len(corpus)))
        assert units.rows.tolist() == [[3], [9]] and units.counted.all()


def test_training_units_hold_nothing_of_validation_or_test(corpus):
    """Folds by speaker cut through dialogues."""
    labels = np.where(np.arange(len(corpus))[:, None] % 5 == 0, -1, corpus.labels)
    corpus = dataclasses.replace(corpus, labels=labels)
    grouping = make_grouping(corpus, "dialogue")
    for fold in make_folds(corpus, "session_speaker"):
        units = grouping.units(fold.train, fold.context)
        there = units.rows[units.rows >= 0]
        sessions = set(corpus.columns["session"][fold.test])
        assert not sessions & set(corpus.columns["session"][there])
        assert (labels[there] == -1).any() and not (labels[units.rows[units.counted]] == -1).any()
        tests = grouping.units(fold.test, np.arange(len(corpus)))
        assert set(tests.rows[tests.counted]) == set(fold.test)
        others = set(tests.rows[(tests.rows >= 0) & ~tests.counted])
        assert others & set(fold.validation) and not others & set(fold.train)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"turn": None}, "needs the columns 'dialogue' and 'turn' in utterances.csv.*=none"),
        ({"dialogue": None}, "needs the columns 'dialogue' and 'turn'"),
        ({"turn": ("3", "3")}, "dialogue 'ses0_dia.' has more than one turn 3: utt.*; number its"),
        ({"turn": ("x", "3")}, "dialogue 'ses0_dia.', utterance utt.*: turn 'x' is no number"),
        ({"turn": ("", "3")}, "turn '' is no number"),
        ({"dialogue": ("", "d")}, "1 utterance.s. have no dialogue: utt"),
    ],
)
def test_faulty_dialogues_are_explained(corpus, changes, message):
    columns = dict(corpus.columns)
    rows = np.flatnonzero(columns["dialogue"] == "ses0_dia0")[:2]
    for name, values in changes.items():
        if values is None:
            del columns[name]
        else:
            columns[name] = columns[name].copy()
            columns[name][rows] = values
    with pytest.raises(UserError, match=message):
        make_grouping(dataclasses.replace(corpus, columns=columns), "dialogue")


@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 2**31))
def test_packed_dialogues_are_whole_and_apart(n, n_dialogues, seed):
    rng = np.random.default_rng(seed)
    names = rng.integers(n_dialogues, size=n).astype(str)
    grouping = group_turns(names, np.arange(n), np.arange(n))
    units = grouping.units(np.flatnonzero(rng.random(n) < 0.7), np.arange(n))
    packed = grouping.pack(units)
    assert len(packed) <= len(units) and packed.rows.shape[1] == units.rows.shape[1]

    def dialogues(units):
        """Of every run of utterances its rows and which of them count."""
        found = []
        for rows, counted in zip(*units, strict=True):
            for run in np.split(np.arange(len(rows)), np.flatnonzero(rows < 0)):
                run = run[rows[run] >= 0]
                if len(run):
                    found.append((tuple(rows[run]), tuple(counted[run])))
        return sorted(found)

    assert dialogues(packed) == dialogues(units)


def test_short_dialogues_share_a_row():
    grouping = group_turns(np.repeat(["a", "b", "c"], [7, 3, 3]), np.arange(13), np.arange(13))
    packed = grouping.pack(grouping.units(np.arange(13), np.arange(13)))
    assert packed.rows.tolist() == [[0, 1, 2, 3, 4, 5, 6], [7, 8, 9, -1, 10, 11, 12]]

"""The turns before an utterance, and who speaks."""

import dataclasses

import numpy as np
import pytest

from mmer_jax.data.speakers import number_speakers, with_speakers
from mmer_jax.data.units import Histories, group_turns, make_grouping
from mmer_jax.errors import UserError

# Two dialogues, their turns in any order and with gaps: d of rows 4, 0, 5, 2; e of rows 1, 3.
DIALOGUES = np.array(["d", "e", "d", "e", "d", "d"])
TURNS = np.array(["2", "0", "10", "1", "0", "3"])
IDS = np.array([f"u{i}" for i in range(6)])


def histories(turns):
    return Histories.of(group_turns(DIALOGUES, TURNS, IDS), turns)


def test_each_utterance_comes_after_the_turns_before_it():
    expected = [[-1, 4, 0], [-1, -1, 1], [0, 5, 2], [-1, 1, 3], [-1, -1, 4], [4, 0, 5]]
    np.testing.assert_array_equal(histories(2).table, expected)
    np.testing.assert_array_equal(histories(0).table, np.arange(6)[:, None])
    longer = histories(9)
    assert longer.length == 10 and longer.table[2].tolist() == [-1] * 6 + [4, 0, 5, 2]


def test_units_hold_what_is_counted_after_what_may_be_read():
    units = histories(2).units(np.array([5, 2]), np.array([0]))
    # Of 5 turn 4 may not be read and 0 stands next to it; of 2 all may.
    assert units.rows.tolist() == [[0, 5, 2], [-1, 0, 5]]
    assert units.counted.tolist() == [[False, False, True]] * 2


def test_histories_of_a_corpus_stay_in_their_dialogue_and_order(corpus):
    grouping = make_grouping(corpus, "history", history=3)
    turn = corpus.columns["turn"].astype(int)
    for row, before in zip(grouping.table[:, -1], grouping.table[:, :-1], strict=True):
        before = before[before >= 0]
        assert len(before) == min(3, turn[row])
        assert set(corpus.columns["dialogue"][before]) <= {corpus.columns["dialogue"][row]}
        assert turn[before].tolist() == list(range(turn[row] - len(before), turn[row]))


def test_training_reads_nothing_of_validation_or_test(corpus):
    grouping = make_grouping(corpus, "history", history=3)
    train = np.arange(0, len(corpus), 2)
    units = grouping.units(train, np.array([], int))
    assert set(units.rows[units.rows >= 0]) <= set(train)
    assert (units.rows[:, -1] == train).all()


def test_speakers_are_numbered_as_they_first_speak():
    names = np.array(["ann", "ann", "bob", "cid", "bob", "cid"])
    numbers = number_speakers(group_turns(DIALOGUES, TURNS, IDS), names, IDS)
    assert numbers.tolist() == [1, 0, 0, 1, 0, 2]


def test_no_later_turn_changes_a_number():
    dialogues, turns = np.array(["d"] * 5), np.arange(5).astype(str)
    names = np.array(["a", "b", "a", "c", "b"])
    for count in range(1, 6):
        grouping = group_turns(dialogues[:count], turns[:count], IDS)
        assert number_speakers(grouping, names[:count], IDS).tolist() == [0, 1, 0, 2, 1][:count]


def test_a_corpus_knows_its_number_of_speakers(corpus):
    found = with_speakers(corpus)
    assert found.spec.n_speakers == 2 and found.speakers.max() == 1
    alone = with_speakers(corpus, "none")
    assert alone.spec.n_speakers == 1 and not alone.speakers.any()


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("turn", {1: "0"}, "dialogue 'ses0_dia.' has more than one turn 0"),
        ("turn", {1: "third"}, "utterance utt00001: turn 'third' is no number"),
        ("dialogue", {3: ""}, "1 utterance.s. have no dialogue: utt00003"),
        ("speaker", {3: ""}, "1 utterance.s. have no speaker: utt00003"),
    ],
)
def test_faulty_dialogues_are_explained(corpus, column, values, message):
    changed = corpus.columns[column].copy()
    columns = {**corpus.columns, "dialogue": corpus.columns["dialogue"].copy()}
    if values == {1: "0"}:
        columns["dialogue"][:2] = corpus.columns["dialogue"][0]
        changed[0] = "0"
    for row, value in values.items():
        changed[row] = value
    faulty = dataclasses.replace(corpus, columns={**columns, column: changed})
    with pytest.raises(UserError, match=message):
        with_speakers(faulty)


@pytest.mark.parametrize("column", ["dialogue", "turn", "speaker"])
def test_a_missing_column_is_named(corpus, column):
    columns = {name: values for name, values in corpus.columns.items() if name != column}
    with pytest.raises(UserError, match=f"'{column}'.* utterances.csv, which has: utt_id"):
        with_speakers(dataclasses.replace(corpus, columns=columns))

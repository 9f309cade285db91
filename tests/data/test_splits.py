"""Folds: complete, disjoint, speaker-safe, and clear about what they lack."""

import dataclasses

import numpy as np
import pytest

from mmer_jax.data.splits import SCHEMES, make_folds
from mmer_jax.errors import UserError


def with_columns(corpus, **columns):
    return dataclasses.replace(
        corpus, columns={**corpus.columns, **{k: np.array(v) for k, v in columns.items()}}
    )


@pytest.mark.parametrize(
    ("scheme", "args", "n_folds"),
    [
        ("session_speaker", {}, 10),
        ("session", {}, 5),
        ("kfold", {"kfold": 4, "kfold_by": "speaker"}, 4),
        ("kfold", {"kfold": 5, "kfold_by": "dialogue"}, 5),
    ],
)
def test_every_utterance_is_tested_once_by_a_stranger(corpus, scheme, args, n_folds):
    folds = make_folds(corpus, scheme, **args)
    assert len(folds) == n_folds
    tested = np.concatenate([fold.test for fold in folds])
    np.testing.assert_array_equal(np.sort(tested), np.arange(len(corpus)))
    speaker = corpus.columns["speaker"]
    for fold in folds:
        everyone = np.concatenate([fold.train, fold.validation, fold.test])
        assert len(set(everyone)) == len(everyone)
        assert not set(speaker[fold.train]) & set(speaker[fold.test])
        assert not set(speaker[fold.validation]) & set(speaker[fold.test])


def test_session_speaker_gives_minds_ten_folds(corpus):
    folds = make_folds(corpus, "session_speaker")
    session, speaker = corpus.columns["session"], corpus.columns["speaker"]
    for k, fold in enumerate(folds):
        assert set(session[fold.test]) == set(session[fold.validation]) == {str(k // 2)}
        assert len(set(speaker[fold.test])) == len(set(speaker[fold.validation])) == 1
        assert str(k // 2) not in session[fold.train]


def test_split_column(corpus):
    part = np.array(["train"] * 200 + ["dev"] * 20 + ["tst"] * 15 + [""] * 5)
    split = with_columns(corpus, split=part, speaker=[f"p{i}" for i in range(240)])
    (fold,) = make_folds(split, "split")
    assert [len(fold.train), len(fold.validation), len(fold.test)] == [200, 20, 15]


def test_split_with_known_voices_is_refused_unless_allowed(corpus):
    split = with_columns(corpus, split=["train", "dev", "test"] * 80)
    with pytest.raises(UserError, match="in training and test alike"):
        make_folds(split, "split")
    assert len(make_folds(split, "split", allow_speaker_overlap=True)) == 1


def test_unlabelled_utterances_are_in_no_fold(corpus):
    labels = corpus.labels.copy()
    labels[::7] = -1
    for fold in make_folds(dataclasses.replace(corpus, labels=labels), "session"):
        *parts, context = dataclasses.astuple(fold)
        for rows in parts:
            assert (rows % 7 != 0).all()
        assert len(context) and (context % 7 == 0).all()  # what dialogues are read with


def test_a_class_absent_from_training_is_named(corpus):
    labels = corpus.labels.copy()
    labels[(labels[:, 0] == 2) & (corpus.columns["session"] != "1")] = 0
    with pytest.raises(UserError, match="fold 0 .* no training utterance of class neutral"):
        make_folds(dataclasses.replace(corpus, labels=labels), "session")


def test_an_empty_part_is_named(corpus):
    split = with_columns(corpus, split=["train"] * 200 + ["dev"] * 40, speaker=np.arange(240))
    with pytest.raises(UserError, match="fold 0 .* no labelled test utterance"):
        make_folds(split, "split")


@pytest.mark.parametrize(
    ("scheme", "columns", "message"),
    [
        ("halves", {}, "unknown data.splits 'halves'; choose one of: session_speaker"),
        ("split", {}, "needs a column 'split'"),
        ("split", {"split": ["train"] * 239 + ["rest"]}, "column 'split' holds rest"),
        ("session_speaker", {"speaker": ["x"] * 240}, "has 1: x"),
        ("session", {"session": ["a", "b"] * 120}, "at least three groups, found 2"),
        ("kfold", {"speaker": ["x", "y"] * 120}, "expected 3 to 2"),
    ],
)
def test_unusable_columns_are_explained(corpus, scheme, columns, message):
    with pytest.raises(UserError, match=message):
        make_folds(with_columns(corpus, **columns), scheme)


@pytest.mark.parametrize("by", ["speaker", "dialogue"])
@pytest.mark.parametrize("seed", range(12))
def test_kfold_never_separates_a_speakers_utterances(corpus, seed, by):
    n = len(corpus)
    rng = np.random.default_rng(1000 + seed)  # not the corpus's own
    speaker, dialogue = rng.integers(12, size=n), rng.integers(30, size=n)
    mixed = with_columns(corpus, speaker=speaker.astype(str), dialogue=dialogue.astype(str))
    try:
        folds = make_folds(mixed, "kfold", kfold=3, kfold_by=by)
    except UserError as error:
        assert "share no speaker" in str(error)  # random dialogues join everybody
        return
    for fold in folds:
        assert not set(speaker[fold.train]) & set(speaker[fold.test])


def test_schemes_are_the_documented_ones():
    assert set(SCHEMES) == {"session_speaker", "session", "split", "kfold"}

"""TextGrids in both forms, and the labels that are made of them."""

import dataclasses

import numpy as np
import pytest

from mmer_jax.errors import UserError
from mmer_jax.speech.corpus import read_corpus
from mmer_jax.speech.features import FRAME_SECONDS
from mmer_jax.speech.labels import read_labels
from mmer_jax.speech.phones import PHONES
from mmer_jax.speech.textgrid import Interval, TextGrid, read_textgrid, write_textgrid

SHORT = '''File type = "ooTextFile"
Object class = "TextGrid"

0
1.2
<exists>
2
"IntervalTier"
"words"
0
1.2
3
0
0.2
""
0.2
0.8
"say ""7"""
0.8
1.2
""
"TextTier"
"clicks"
0
1.2
1
0.5
"x"
'''


def test_the_short_form_is_read(tmp_path):
    path = tmp_path / "x.TextGrid"
    path.write_text(SHORT)
    grid = read_textgrid(path)
    assert grid.seconds == 1.2 and list(grid.tiers) == ["words"]
    assert grid.tiers["words"][1] == Interval(0.2, 0.8, 'say "7"')


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_long_form_reads_back(tmp_path, encoding):
    words = (Interval(0.0, 0.5, 'he said "[3]: = 4"'), Interval(0.5, 1.0, "caf\u00e9"))
    grid = TextGrid(1.0, {"speaker - words": words, "phones": ()})
    path = tmp_path / "x.TextGrid"
    write_textgrid(path, grid)
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    assert read_textgrid(path) == grid
    assert read_textgrid(path).tier("words", "x") == words


@pytest.mark.parametrize("keep", [0, 30, 60, 120, 170])
def test_a_grid_that_is_cut_short_is_refused(tmp_path, keep):
    path = tmp_path / "x.TextGrid"
    path.write_text(SHORT[:keep])
    with pytest.raises(UserError, match="x.TextGrid is no"):
        read_textgrid(path)


def test_intervals_must_follow_one_another(tmp_path):
    path = tmp_path / "x.TextGrid"
    write_textgrid(path, TextGrid(1.0, {"w": (Interval(0.5, 0.9, "b"), Interval(0.1, 0.5, "a"))}))
    with pytest.raises(UserError, match="interval 'a' from 0.1 to 0.5"):
        read_textgrid(path)


@pytest.fixture
def utterance(tmp_path):
    """(corpus, utterance, its grid) of "we see" with a pause between the words."""
    (tmp_path / "utterances.csv").write_text("utt_id,text,alignment\nu1,we see,u1.TextGrid\n")
    words = (Interval(0.10, 0.30, "we"), Interval(0.62, 1.00, "see"))
    sounds = (
        Interval(0.10, 0.20, "W"),
        Interval(0.20, 0.30, "IY1"),
        Interval(0.30, 0.62, "sp"),
        Interval(0.62, 0.80, "S"),
        Interval(0.80, 1.00, "IY1"),
    )
    corpus = read_corpus(tmp_path)
    return corpus, corpus.utterances[0], TextGrid(1.2, {"words": words, "phones": sounds})


def labels_of(utterance, seconds=1.2, frames=76):
    corpus, spoken, grid = utterance
    write_textgrid(corpus.root / "u1.TextGrid", grid)
    return read_labels(corpus, spoken, seconds, frames)


def test_a_grid_gives_phones_pauses_and_durations(utterance):
    labels = labels_of(utterance)
    assert [PHONES[i] for i in labels.ids] == "SIL W IY SIL S IY SIL".split()
    assert labels.words.tolist() == [-1, 0, 0, -1, 1, 1, -1]
    assert labels.durations.sum() == 76
    edges = np.cumsum(labels.durations)[:-1] * FRAME_SECONDS
    np.testing.assert_allclose(edges, [0.1, 0.2, 0.3, 0.62, 0.8, 1.0], atol=FRAME_SECONDS / 2)


def test_without_a_grid_durations_are_unknown(utterance):
    corpus, spoken, _ = utterance
    labels = read_labels(corpus, dataclasses.replace(spoken, alignment=""), 1.2, 76)
    assert not labels.durations.any() and len(labels.ids) == 6


def test_a_grid_of_another_recording_is_refused(utterance):
    with pytest.raises(UserError, match=r"u1.TextGrid ends at 1.20 s, its audio at 2.00 s"):
        labels_of(utterance, seconds=2.0, frames=126)


def test_a_grid_of_another_text_is_refused(utterance):
    corpus, spoken, grid = utterance
    other = dataclasses.replace(spoken, text="we see them")
    with pytest.raises(UserError, match="has 2 words, the text of 'u1' has 3"):
        labels_of((corpus, other, grid))
    other = dataclasses.replace(spoken, phones="W IY | T IY")
    with pytest.raises(UserError, match="other phones than utterances.csv"):
        labels_of((corpus, other, grid))


def test_a_grid_with_another_word_is_refused(utterance):
    corpus, spoken, grid = utterance
    other = dataclasses.replace(spoken, text="we saw")
    with pytest.raises(UserError, match="has the word 'see' where the text of 'u1' has 'saw'"):
        labels_of((corpus, other, grid))
    words = (grid.tiers["words"][0]._replace(label="WE"), grid.tiers["words"][1])
    words = (words[0], words[1]._replace(label="<unk>"))  # MFA's for a word it does not know
    assert len(labels_of((corpus, spoken, grid._replace(tiers=grid.tiers | {"words": words}))).ids)


def test_phones_of_another_alphabet_are_refused(utterance):
    corpus, spoken, grid = utterance
    sounds = grid.tiers["phones"]
    sounds = (*sounds[:3], sounds[3]._replace(label="\u0283"), sounds[4])
    changed = grid._replace(tiers=grid.tiers | {"phones": sounds})
    with pytest.raises(UserError, match="phone '\u0283' is not ARPAbet"):
        labels_of((corpus, spoken, changed))


def test_a_missing_tier_is_named(utterance):
    corpus, spoken, grid = utterance
    with pytest.raises(UserError, match="0 tiers 'words', expected one; its tiers are: phones"):
        labels_of((corpus, spoken, grid._replace(tiers={"phones": grid.tiers["phones"]})))


def test_a_word_that_mfa_does_not_know_is_named(utterance):
    corpus, spoken, grid = utterance
    unknown = Interval(0.10, 0.30, "spn")  # in place of "we"
    changed = grid._replace(tiers=grid.tiers | {"phones": (unknown, *grid.tiers["phones"][2:])})
    with pytest.raises(UserError, match="no phones for the word 'we' .*add it to the dictionary"):
        labels_of((corpus, spoken, changed))

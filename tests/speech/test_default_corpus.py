"""The corpus that espeak-ng makes: every phone, honest splits, the same each time."""

import random

import numpy as np
import pytest

from mmer_jax.errors import UserError
from mmer_jax.speech import accents, default_corpus, espeak
from mmer_jax.speech.accents import ACCENTS, mnemonics
from mmer_jax.speech.corpus import read_corpus
from mmer_jax.speech.phones import CONSONANTS, VOWELS, pronounce
from mmer_jax.speech.sentences import make_sentences

EVERY = [*(f"{v}1" for v in VOWELS), *CONSONANTS]


@pytest.mark.parametrize("accent", ["", *ACCENTS])
def test_a_voice_speaks_every_phone(accent):
    """espeak.speak refuses a voice that leaves out, or adds, a single phoneme."""
    voice = espeak.Voice(accent or accents.L1_VOICE)
    for strength in (0.0, 1.0):
        for phone in EVERY:
            word = ["T", phone] if phone[:-1] in VOWELS else [phone, "AA1"]
            told = mnemonics(word, accent, strength, random.Random(0))
            assert len(told) == 2
            speech = espeak.speak([[m for p in told for m in p]], voice)
            assert np.abs(speech.audio).max() > 1000


def test_unknown_phonemes_and_voices_are_told():
    with pytest.raises(UserError, match="speaks 0 of the 1 phonemes"):
        espeak.speak([["{"]], espeak.Voice("en-us"))
    with pytest.raises(UserError, match="no voice 'klingonish'"):
        espeak.speak([["t"]], espeak.Voice("klingonish"))


def test_strength_decides_which_consonants_are_mistaken():
    def said(strength):
        return [mnemonics(["TH"], "de", strength, random.Random(i))[0][0] for i in range(200)]

    assert set(said(0.0)) == {"T"} and set(said(1.0)) == {"s"}
    assert 0.4 < said(0.5).count("s") / 200 < 0.6


def test_sentences_are_different_and_cover_all_phones():
    sentences = make_sentences(440)
    assert len(set(sentences)) == 440 and sentences[:9] == make_sentences(9)
    spoken = {p for s in sentences[:340] for word in pronounce(s).phones for p in word}
    assert spoken == set(VOWELS + CONSONANTS)


def test_held_out_sentences_and_speakers_are_nowhere_in_training():
    texts = default_corpus._texts()
    assert not set(texts["train"]) & set(texts["dev"] + texts["test"])
    assert not set(texts["dev"]) & set(texts["test"])
    for speaker in default_corpus.speakers():
        trains = "train" in speaker.counts
        assert trains != ({"dev", "test"} & speaker.counts.keys() != set())
    voices = [s.voice for s in default_corpus.speakers()]
    assert len(set(voices)) == len(voices) and len(voices) == 12 + 3 * len(ACCENTS)


def test_an_utterance_comes_with_the_times_of_its_phones():
    speaker = default_corpus.speakers()[0]
    audio, grid = default_corpus.speak("the old bear ran", speaker)
    assert [w.label for w in grid.tiers["words"]] == ["the", "old", "bear", "ran"]
    assert all(p.end > p.start for p in grid.tiers["phones"])
    assert abs(grid.seconds - len(audio) / 16000) < 1e-6


def test_the_corpus_is_made_once_and_the_same_whatever_was_said_before(tmp_path, monkeypatch):
    few = [default_corpus.speakers()[-1]._replace(counts={"test": 2})]
    monkeypatch.setattr(default_corpus, "speakers", lambda: few)
    first = default_corpus.default_corpus(tmp_path / "a")
    default_corpus.speak("something in between", few[0])
    second = default_corpus.default_corpus(tmp_path / "b")
    for utterance in first.utterances:
        paths = [corpus.audio_path(utterance) for corpus in (first, second)]
        assert paths[0].read_bytes() == paths[1].read_bytes()
    monkeypatch.setattr(default_corpus, "make_corpus", None)
    assert default_corpus.default_corpus(tmp_path / "a") == first


def test_the_folder_reads_back(spoken):
    corpus = read_corpus(spoken)
    assert {u.accent for u in corpus.utterances} == {"", "es"}
    first = corpus.utterances[0]
    assert corpus.audio_path(first).exists() and corpus.alignment_path(first).exists()

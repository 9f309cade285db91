"""Which consonants a speaker of the default corpus was told to mistake."""

import numpy as np

from mmer_jax.speech.accents import is_mistaken
from mmer_jax.speech.default_corpus import speakers, tell
from mmer_jax.speech.mispronunciation import consonants
from mmer_jax.speech.phones import without_stress


def test_only_consonants_foreign_to_the_language_can_be_mistaken():
    assert is_mistaken("TH", ["s"], "de") is True and is_mistaken("TH", ["T"], "de") is False
    assert is_mistaken("M", ["m"], "de") is None and is_mistaken("IY", ["i:"], "de") is None
    assert is_mistaken("TH", ["T"], "") is None


def test_goodness_is_sorted_by_what_was_told():
    """A goodness of -1 for mistaken phones and 0 for all others, between two silences."""
    speaker = next(s for s in speakers() if s.accent == "de" and s.strength == 0.5)
    text = "the other brother would gather with that very judge"
    told = tell(text, speaker)
    pairs = [
        (without_stress(phone), mnemonics)
        for word, spoken in zip(told.phones, told.mnemonics, strict=True)
        for phone, mnemonics in zip(word, spoken, strict=True)
    ]
    wrong = np.array([is_mistaken(phone, m, "de") is True for phone, m in pairs])
    foreign = sum(is_mistaken(phone, m, "de") is not None for phone, m in pairs)
    columns = {
        "split": np.array(["train", "test"]),
        "accent": np.array(["", "de"]),
        "speaker": np.array(["en0", speaker.name]),
        "text": np.array(["", text]),
    }
    goodness = np.concatenate([[-9, -9, -9], [-9], -wrong.astype(float), [-9]])
    words = np.concatenate([[-1, 0, -1], [-1], np.zeros(len(pairs)), [-1]])
    lengths = np.array([3, len(pairs) + 2])
    by_name = {speaker.name: speaker}
    mistaken, right = consonants(columns, goodness, words, lengths, by_name, "test")
    assert set(mistaken) == {-1.0} and set(right) == {0.0}
    assert len(mistaken) == wrong.sum() and len(mistaken) + len(right) == foreign > 5

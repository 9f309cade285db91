"""From text to phones, and what cannot be pronounced."""

import numpy as np
import pytest

from mmer_jax.errors import UserError
from mmer_jax.speech import phones
from mmer_jax.speech.phones import PHONES, SIL, pronounce, sequence


def test_the_inventory_is_blank_39_phones_and_silence():
    assert (PHONES[0], PHONES[-1], len(PHONES)) == ("<blank>", "SIL", 41)
    assert len(set(PHONES)) == 41 and PHONES[SIL] == "SIL"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("We call it bear.", "W IY | K AO L | IH T | B EH R"),
        ("a button", "AH | B AH T AH N"),
        ("girl's fire", "G ER L Z | F AY ER"),
        ("well-known", "W EH L | N OW N"),
        ("CAF\u00c9", "K AE F EY"),
    ],
)
def test_espeak_pronounces_word_by_word(text, expected):
    found = pronounce(text).phones
    assert " | ".join(" ".join(word) for word in found) == expected


def test_given_phones_lose_stress_and_position():
    found = pronounce("WE CALL", "W_B IY0_E | K_B AO1_I L_E")
    assert found.words == ("WE", "CALL")
    assert found.phones == (("W", "IY"), ("K", "AO", "L"))


def test_a_sequence_has_silence_at_both_ends():
    ids, words = sequence(pronounce("we see", "W IY | S IY"))
    assert [PHONES[i] for i in ids] == ["SIL", "W", "IY", "S", "IY", "SIL"]
    assert words.tolist() == [-1, 0, 0, 1, 1, -1]
    assert ids.dtype == np.int32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("three 3 dogs", "cannot pronounce '3'"),
        ("\u4f60\u597d", "cannot pronounce '\u4f60', '\u597d'"),
        ("50% \u20ac", "'%', '0', '5', '\u20ac'"),
        (" ... ", "no word to pronounce"),
        ("", "no word to pronounce"),
    ],
)
def test_what_cannot_be_pronounced_is_named(text, message):
    with pytest.raises(UserError, match="utt7: ") as caught:
        pronounce(text, source="utt7")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("W IY | K QQ", "unknown phone QQ"),
        ("W IY", "phones of 1 words for a text of 2"),
        ("W IY | ", "phones of 1 words for a text of 2"),
    ],
)
def test_given_phones_must_fit_the_text(given, message):
    with pytest.raises(UserError, match=message):
        pronounce("we call", given)


def test_stress_comes_with_the_vowels():
    assert phones.stressed("water") == ("W", "AO1", "T", "ER0")

"""The phone inventory, and how a text becomes phones.

The inventory is ARPAbet without stress, 39 phones, with silence and the blank of CTC. A text is
pronounced word by word by espeak-ng's American English, unless its phones are given.
"""

import re
import unicodedata
from typing import NamedTuple

import numpy as np

from mmer_jax.errors import UserError, shorten

VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
CONSONANTS = (
    *("B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N", "NG"),
    *("P", "R", "S", "SH", "T", "TH", "V", "W", "Y", "Z", "ZH"),
)
PHONES = ("<blank>", *sorted(VOWELS + CONSONANTS), "SIL")
BLANK, SIL = 0, len(PHONES) - 1
N_SYMBOLS = len(PHONES)
INDEX = {phone: i for i, phone in enumerate(PHONES)}

# espeak-ng's mnemonics (en-us) -> ARPAbet. Where it speaks one sound of two phones, both stand.
_FROM_ESPEAK = {
    **{"0": "AA", "0#": "AA", "02": "AA", "A:": "AA", "A#": "AA", "A@": "AA R", "A~": "AA N"},
    **{"a": "AE", "aa": "AE", "a2": "AE", "a#": "AH", "a#2": "AH", "V": "AH", "VR": "AH R"},
    **{"@": "AH", "@#": "AH", "@2": "AH", "@5": "AH", "@L": "AH L", "@-": "", "3": "ER"},
    **{"3:": "ER", "E": "EH", "E2": "EH", "E#": "EH", "e@": "EH R", "e": "EY", "e:": "EY"},
    **{"e#": "EY", "eI": "EY", "I": "IH", "I#": "IH", "I2": "IH", "I2#": "IH", "IR": "IH R"},
    **{"i": "IY", "i:": "IY", "i@": "IY AH", "i@3": "IH R", "O": "AO", "O2": "AO", "O:": "AO"},
    **{"O@": "AO R", "o@": "AO R", "O~": "AO N", "o": "OW", "o:": "OW", "oU": "OW", "oU#": "OW"},
    **{"OI": "OY", "U": "UH", "U@": "UH R", "u": "UW", "u:": "UW", "aI": "AY", "aI@": "AY AH"},
    **{"aI3": "AY ER", "aU": "AW", "aU@": "AW ER", "l-": "AH L", "m-": "AH M", "n-": "AH N"},
    **{"N-": "AH NG", "r-": "R", "b": "B", "tS": "CH", "d": "D", "d#": "D", "D": "DH", "f": "F"},
    **{"g": "G", "h": "HH", "dZ": "JH", "k": "K", "x": "K", "l": "L", "l#": "L", "m": "M"},
    **{"n": "N", "N": "NG", "p": "P", "r": "R", "s": "S", "S": "SH", "t": "T", "t#": "T"},
    **{"t2": "T", "?": "T", "T": "TH", "v": "V", "v#": "V", "w": "W", "w#": "W", "j": "Y"},
    **{"z": "Z", "z#": "Z", "Z": "ZH", ";": "", "|": ""},
}
_WEAK = {"a": ("AH0",)}  # alone espeak-ng names the letter
_PUNCTUATION = set(" \t\n.,;:!?\"'()[]-\u2010\u2011\u2013\u2014\u2018\u2019\u201c\u201d\u2026")


class Pronunciation(NamedTuple):
    """Words and the phones of each, ARPAbet without stress."""

    words: tuple[str, ...]
    phones: tuple[tuple[str, ...], ...]


def pronounce(text: str, given: str = "", source: str = "text") -> Pronunciation:
    """The phones of a text.

    Args:
      text: English.
      given: its phones where they are known, words separated by '|' ("W IY | K AO1 L"); stress
        digits and position endings as Kaldi writes them ("K_B", "AO1_I") are ignored.
      source: what error messages name.

    Raises:
      UserError: characters that cannot be pronounced, no word at all, or phones that are unknown
        or not of as many words as the text has.
    """
    words = split_words(text, source)
    if given.strip():
        return Pronunciation(words, _given(words, given, source))
    phones = tuple(tuple(map(without_stress, stressed(word, source))) for word in words)
    return Pronunciation(words, phones)


def sequence(pronunciation: Pronunciation) -> tuple[np.ndarray, np.ndarray]:
    """(phone ids [P], word numbers [P]) with silence first and last, whose word number is -1."""
    ids, words = [SIL], [-1]
    for number, phones in enumerate(pronunciation.phones):
        ids += [INDEX[phone] for phone in phones]
        words += [number] * len(phones)
    return np.array([*ids, SIL], np.int32), np.array([*words, -1], np.int32)


def split_words(text: str, source: str) -> tuple[str, ...]:
    """The words of a text; punctuation and hyphens separate them."""
    bad = sorted({c for c in text if c not in _PUNCTUATION and not _is_latin(c)})
    if bad:
        raise UserError(
            f"{source}: cannot pronounce {shorten([f'{c!r}' for c in bad])} in {text[:60]!r}; "
            "write English words, numbers and symbols in letters"
        )
    plain = text.replace("\u2019", "'").replace("\u2018", "'")
    words = (word.strip("'") for word in re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*'?", plain))
    found = tuple(word for word in words if word)
    if not found:
        raise UserError(f"{source}: no word to pronounce in {text[:60]!r}")
    return found


def stressed(word: str, source: str = "text") -> tuple[str, ...]:
    """ARPAbet of a word by espeak-ng, vowels with their stress: "W", "AO1", "T", "ER0"."""
    from mmer_jax.speech.espeak import phonemes  # needs the extra `speech`; phones given do not

    if word.lower() in _WEAK:
        return _WEAK[word.lower()]
    found: list[str] = []
    for phoneme in phonemes(word):
        name = phoneme.lstrip("',%=")
        if name not in _FROM_ESPEAK:
            raise UserError(
                f"{source}: espeak-ng pronounces {word!r} with the phoneme {name!r}, which has no "
                "ARPAbet phone; give the phones of this text"
            )
        stress = {"'": "1", ",": "2"}.get(phoneme[0], "0")
        for part in _FROM_ESPEAK[name].split():
            if part in VOWELS:
                part, stress = part + stress, "0"
            if found[-1:] != [part]:  # "airy": its vowel brings an R along
                found.append(part)
    if not found:
        raise UserError(f"{source}: espeak-ng has no pronunciation of {word!r}")
    return tuple(found)


def without_stress(phone: str) -> str:
    """ "AO1_I" -> "AO"."""
    return phone.split("_")[0].rstrip("012")


def _is_latin(c: str) -> bool:
    """A letter that is, or carries accents on, one of A to Z."""
    return c.isalpha() and unicodedata.normalize("NFKD", c)[0].isascii()


def _given(words, given: str, source: str) -> tuple[tuple[str, ...], ...]:
    phones = tuple(tuple(map(without_stress, word.split())) for word in given.split("|"))
    unknown = sorted({p for word in phones for p in word} - set(VOWELS + CONSONANTS))
    if unknown:
        raise UserError(f"{source}: unknown phone {shorten(unknown)}; expected ARPAbet, as K AO1 L")
    if len(phones) != len(words) or not all(phones):
        raise UserError(
            f"{source}: phones of {sum(map(bool, phones))} words for a text of {len(words)}, "
            f"{' '.join(words)[:60]!r}; separate the phones of words by '|'"
        )
    return phones

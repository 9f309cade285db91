"""How the voices of espeak-ng pronounce English phones: its own voice, and seven foreign ones.

A foreign voice left alone with English text reads it by the spelling rules of its language, which
yields words that no learner would say. Here it is told the phones, and says each as the nearest
phoneme of its language: Mandarin has no "th" and says "s", Spanish has no "z". A learner who is
further on (a lower `strength`) gets some of the consonants right; vowels, rhythm and melody stay
those of the voice. The phonemes are espeak-ng's mnemonics; several are spoken one after another.
"""

import random
from collections.abc import Sequence

from mmer_jax.speech.phones import VOWELS, without_stress

L1_VOICE = "en-us"
_ENGLISH = {
    **{"AA": "A:", "AE": "a", "AH": "V", "AO": "O:", "AW": "aU", "AY": "aI", "EH": "E"},
    **{"ER": "3:", "EY": "eI", "IH": "I", "IY": "i:", "OW": "oU", "OY": "OI", "UH": "U"},
    **{"UW": "u:", "B": "b", "CH": "tS", "D": "d", "DH": "D", "F": "f", "G": "g", "HH": "h"},
    **{"JH": "dZ", "K": "k", "L": "l", "M": "m", "N": "n", "NG": "N", "P": "p", "R": "r"},
    **{"S": "s", "SH": "S", "T": "t", "TH": "T", "V": "v", "W": "w", "Y": "j", "Z": "z"},
    **{"ZH": "Z"},
}
_MANDARIN = {
    **{"B": "p", "D": "t", "G": "k", "P": "ph", "T": "th", "K": "kh", "TH": "s", "DH": "ts"},
    **{"V": "w", "Z": "ts", "ZH": "z.", "SH": "s.", "CH": "ts.h", "JH": "ts.", "R": "z."},
    **{"HH": "x", "Y": "i", "W": "u", "AA": "A", "AE": "E", "AH": "a", "AO": "o", "AW": "Au"},
    **{"AY": "ai", "EH": "E", "ER": "@r", "EY": "ei", "IH": "i", "IY": "i", "OW": "ou"},
    **{"OY": "o i", "UH": "u", "UW": "u"},
}
_GERMAN = {
    **{"W": "v", "V": "f", "TH": "s", "DH": "z", "JH": "tS", "ZH": "S", "AA": "A:", "AE": "E"},
    **{"AH": "a", "AO": "O", "AW": "aU", "AY": "aI", "EH": "E", "ER": "Y:", "EY": "e:"},
    **{"IH": "I", "IY": "i:", "OW": "o:", "OY": "OY", "UH": "U", "UW": "u:"},
}
_SPANISH = {
    **{"V": "b", "Z": "s", "DH": "d", "JH": "J^", "SH": "tS", "ZH": "s", "HH": "x", "R": "R"},
    **{"AA": "a", "AE": "a", "AH": "a", "AO": "o", "AW": "aU", "AY": "aI", "EH": "e"},
    **{"ER": "e *", "EY": "eI", "IH": "i", "IY": "i", "OW": "o", "OY": "oI", "UH": "u"},
    **{"UW": "u"},
}
_FRENCH = {
    **{"TH": "s", "DH": "z", "HH": "?", "CH": "S", "JH": "Z", "NG": "n", "AA": "a", "AE": "a"},
    **{"AH": "W", "AO": "O", "AW": "a u", "AY": "a j", "EH": "E", "ER": "W r", "EY": "e"},
    **{"IH": "i", "IY": "i", "OW": "o", "OY": "O j", "UH": "u", "UW": "u"},
}
_HINDI = {
    **{"T": "t.", "D": "d.", "TH": "t[", "DH": "d[", "W": "v#", "V": "v#", "Z": "dZ"},
    **{"ZH": "dZ", "F": "p#", "AA": "a:", "AE": "E", "AH": "a", "AO": "O:", "AW": "aU"},
    **{"AY": "aI", "EH": "E", "ER": "V r", "EY": "e:", "IH": "I", "IY": "i:", "OW": "o:"},
    **{"OY": "O: I", "UH": "U", "UW": "u:"},
}
_JAPANESE = {
    **{"L": "r`", "R": "r`", "TH": "s", "DH": "z", "V": "b", "F": "p\\", "SH": "s\\"},
    **{"ZH": "d_z\\", "JH": "d_z\\", "CH": "t_s\\", "NG": "N\\", "AA": "a", "AE": "a"},
    **{"AH": "a", "AO": "o", "AW": "a u", "AY": "a i", "EH": "e", "ER": "a", "EY": "e"},
    **{"IH": "i", "IY": "i", "OW": "o", "OY": "o i", "UH": "u", "UW": "u"},
}
_RUSSIAN = {
    **{"W": "v", "TH": "s", "DH": "z", "HH": "x", "NG": "n", "AA": "a", "AE": "E", "AH": "a"},
    **{"AO": "o", "AW": "a u", "AY": "a j", "EH": "E", "ER": "E r", "EY": "E j", "IH": "I"},
    **{"IY": "i", "OW": "o", "OY": "o j", "UH": "u", "UW": "u"},
}
ACCENTS = {
    "cmn": _MANDARIN,
    "de": _GERMAN,
    "es": _SPANISH,
    "fr": _FRENCH,
    "hi": _HINDI,
    "ja": _JAPANESE,
    "ru": _RUSSIAN,
}


def is_mistaken(phone: str, told: Sequence[str], accent: str) -> bool | None:
    """Whether a consonant was told as the voice's own phoneme instead of the English one.

    None: a vowel, or a consonant that the voice's language has.
    """
    if phone in VOWELS or ACCENTS.get(accent, {}).get(phone, _ENGLISH[phone]) == _ENGLISH[phone]:
        return None
    return told[0] != _ENGLISH[phone]


def mnemonics(
    word: Sequence[str], accent: str, strength: float, draw: random.Random
) -> list[list[str]]:
    """What a voice is told for each phone of a word.

    Args:
      word: ARPAbet with stress.
      accent: of `ACCENTS`; "": the L1 voice.
      strength: share of the consonants foreign to the language that are mispronounced.
      draw: decides which.

    Returns:
      One or more mnemonics for each phone, the stress mark before the first.
    """
    foreign = ACCENTS[accent] if accent else {}
    told = []
    for phone in word:
        name = without_stress(phone)
        mistaken = name in VOWELS or draw.random() < strength
        spoken = (foreign.get(name) if mistaken else None) or _ENGLISH[name]
        if not accent and phone == "AH0":
            spoken = "@"
        stress = {"1": "'", "2": ","}.get(phone[-1], "")
        first, *rest = spoken.split()
        told.append([stress + first, *rest])
    return told

"""espeak-ng's L1 voice saying the phones of an utterance."""

import random

import numpy as np

from mmer_jax.speech import accents, espeak
from mmer_jax.speech.audio import resample
from mmer_jax.speech.phones import PHONES, VOWELS, stressed, without_stress
from mmer_jax.speech.scoring import Scored


def reference_audio(scored: Scored) -> np.ndarray:
    """[n] 16 kHz audio of the L1 voice with the phones that the utterance is held against.

    Stress comes from espeak-ng's own pronunciation of each word where that has the same vowels,
    otherwise the first vowel has it.
    """
    told = []
    for number, word in enumerate(scored.word_names):
        spoken = [PHONES[p] for p in scored.phones[scored.words == number]]
        told.append(accents.mnemonics(_stressed(word, spoken), "", 1.0, random.Random(0)))
    voice = espeak.Voice(accents.L1_VOICE)
    speech = espeak.speak([[m for phone in word for m in phone] for word in told], voice)
    return resample(speech.audio / 2**15, speech.rate)


def _stressed(word: str, spoken: list[str]) -> list[str]:
    own = stressed(word)
    if [without_stress(p) for p in own] == spoken:
        return list(own)
    places = [i for i, phone in enumerate(spoken) if phone in VOWELS]
    return [
        phone + ("1" if i == places[0] else "0") if phone in VOWELS else phone
        for i, phone in enumerate(spoken)
    ]

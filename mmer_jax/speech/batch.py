"""A batch of utterances, as every network of the speech part reads it."""

from typing import NamedTuple

from jaxtyping import Array, Float, Int


class SpeechBatch(NamedTuple):
    """B utterances, padded with zeros; frames last 16 ms.

    Phones begin and end with silence. Where an utterance has no alignment its durations are 0;
    pitch, energy and intensity are 0 until a recogniser has been asked (annotate.py).
    """

    mel: Float[Array, "B F 80"]
    n_frames: Int[Array, " B"]
    phones: Int[Array, "B P"]
    n_phones: Int[Array, " B"]
    durations: Int[Array, "B P"]  # frames
    pitch: Float[Array, "B P"]  # mean log F0 of the phone, standardised
    energy: Float[Array, "B P"]  # mean log energy of the phone, standardised
    intensity: Float[Array, "B P"]  # of the accent, 0 to 1
    speaker: Int[Array, " B"]
    accent: Int[Array, " B"]  # 0: L1
    words: Int[Array, "B P"]  # number of the word; -1: silence, padding
    weights: Float[Array, " B"]  # 0: a row that only fills up

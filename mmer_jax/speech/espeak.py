"""espeak-ng through its library: phonemes of a word, and speech from phonemes.

The wheel espeakng-loader brings the library and its voices. It keeps one state per process, and
`library()` is the only place that touches it at first.
"""

import ctypes
import functools
from typing import NamedTuple

import numpy as np

from mmer_jax.errors import UserError

_RETRIEVAL = 2  # AUDIO_OUTPUT_SYNCHRONOUS: audio comes through the callback
_PHONEME_EVENTS = 1
_UTF8, _PHONEMES_IN_BRACKETS = 1, 0x100
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4  # espeak_PARAMETER
_EVENT_END, _EVENT_PHONEME = 0, 7
QUIET = 50  # of 100: at full volume some voices clip
_LINKS = ("r-", "r", ";", "@-")  # put between phonemes without being told; they end the one before


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class Voice(NamedTuple):
    """Who speaks: a voice or voice+variant of espeak-ng, words a minute, pitch and its range."""

    name: str
    rate: int = 160
    pitch: int = 50  # 0 to 99
    pitch_range: int = 50  # 0 to 99


class Speech(NamedTuple):
    """What espeak-ng said."""

    audio: np.ndarray  # [n] int16
    rate: int  # Hz
    phonemes: tuple[tuple[str, int], ...]  # (mnemonic without stress, its first sample)


class _Library:
    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError:
            raise UserError(
                "espeak-ng is not installed; pip install 'mmer_jax[speech]', or give the phones "
                "of every text"
            ) from None
        self.calls = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.rate = self.calls.espeak_Initialize(_RETRIEVAL, 0, data, _PHONEME_EVENTS)
        if self.rate <= 0:
            raise UserError(f"espeak-ng does not start with its data in {data.decode()}")
        self.calls.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self.audio: list[np.ndarray] = []
        self.events: list[tuple[str, int]] = []
        self._callback = _Callback(self._receive)  # kept: the library does not hold it
        self.calls.espeak_SetSynthCallback(self._callback)

    def set_voice(self, name: str) -> None:
        if self.calls.espeak_SetVoiceByName(name.encode()) != 0:
            raise UserError(f"espeak-ng has no voice '{name}'")

    def say(self, text: str) -> list[tuple[str, int]]:
        """Speak into `audio`; returns (marked mnemonic, first sample) of every phoneme."""
        self.audio.clear()
        self.events.clear()
        data = text.encode()
        flags = _UTF8 | _PHONEMES_IN_BRACKETS
        self.calls.espeak_Synth(data, len(data) + 1, 0, 1, 0, flags, None, None)
        self.calls.espeak_Synchronize()
        return self.events

    def _receive(self, samples, count: int, events) -> int:
        if samples and count:
            self.audio.append(np.ctypeslib.as_array(samples, (count,)).copy())
        position = 0
        while events[position].type != _EVENT_END:
            event = events[position]
            if event.type == _EVENT_PHONEME:
                self.events.append((event.id.string.decode("latin-1"), event.sample))
            position += 1
        return 0


@functools.cache
def library() -> _Library:
    """The process's espeak-ng, started when it is first needed."""
    return _Library()


@functools.lru_cache(maxsize=2**16)
def phonemes(word: str) -> tuple[str, ...]:
    """espeak-ng's American English mnemonics of a word, with their stress marks."""
    espeak = library()
    espeak.set_voice("en-us")
    text = ctypes.c_char_p(word.lower().encode())
    mode = ord("_") << 8  # what separates phonemes
    found = espeak.calls.espeak_TextToPhonemes(ctypes.byref(text), _UTF8, mode)
    return tuple(p for p in found.decode().replace(" ", "_").split("_") if p.strip("',%="))


def speak(words: list[list[str]], voice: Voice) -> Speech:
    """Speech from phonemes; stress marks stand before the mnemonics.

    Raises:
      UserError: no such voice, or one that does not know all the phonemes: it leaves out words.
    """
    espeak = library()
    espeak.set_voice(voice.name)
    for parameter, value in (
        (_RATE, voice.rate),
        (_VOLUME, QUIET),
        (_PITCH, voice.pitch),
        (_RANGE, voice.pitch_range),
    ):
        espeak.calls.espeak_SetParameter(parameter, value, 0)
    text = "[[" + " ".join("|".join(word) for word in words) + "]]"
    told = [mnemonic.lstrip("',") for word in words for mnemonic in word]
    for _ in range(2):  # rarely, after it has pronounced text, it swallows the first event
        spoken = _without_links(espeak.say(text), told)
        sounds = [name for name, _ in spoken if name and not name.startswith("_")]
        if len(sounds) == len(told) and espeak.audio:
            return Speech(np.concatenate(espeak.audio), espeak.rate, tuple(spoken))
    raise UserError(
        f"voice '{voice.name}' speaks {len(sounds)} of the {len(told)} phonemes of {text}"
    )


def _without_links(events, told: list[str]) -> list[tuple[str, int]]:
    """What was spoken, without stress marks and without linking sounds that nobody told."""
    kept: list[tuple[str, int]] = []
    count = 0
    for marked, sample in events:
        name = marked.lstrip("',%=")
        if name in _LINKS and told[count : count + 1] != [name]:
            continue
        kept.append((name, sample))
        count += not name.startswith("_")
    return kept

"""The corpus that needs no download: espeak-ng's English voice (L1) and foreign voices (L2).

Variants of a voice (other formants), pitch and speed make speakers. Every utterance has its phones
and their true times, because espeak-ng was told the former and tells the latter. The same version
of espeak-ng makes the same corpus, sample for sample.

Splits: `train`; `dev` and `test` have sentences and speakers that appear in no other split but
`dev_seen` and `test_seen`, in which the training speakers say these sentences.
"""

import hashlib
import inspect
import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmer_jax.speech import accents, espeak, sentences
from mmer_jax.speech.audio import resample, write_audio
from mmer_jax.speech.cached import made_once
from mmer_jax.speech.corpus import SpeechCorpus, Utterance, read_corpus, write_corpus
from mmer_jax.speech.features import RATE
from mmer_jax.speech.phones import split_words, stressed, without_stress
from mmer_jax.speech.textgrid import Interval, TextGrid, write_textgrid

N_SENTENCES = {"train": 340, "dev": 40, "test": 60}
LEVEL = 0.05  # root mean square of an utterance
NOISE = 5e-4  # root mean square of white noise: no recording is digitally silent
PAUSE = 0.1  # seconds of silence before the first word and after the last


class Speaker(NamedTuple):
    """A speaker of the corpus and how many sentences of which part."""

    name: str
    accent: str  # "": L1
    voice: espeak.Voice
    strength: float  # of the accent
    counts: dict[str, int]  # split -> utterances


def speakers() -> list[Speaker]:
    """12 of L1 (8 for training), three of every accent (2 for training)."""
    found = []
    seen = {"train": 90, "dev_seen": 3, "test_seen": 4}
    for number, variant in enumerate(["", "+f1", "+m1", "+f3", "+m3", "+f5", "+m5", "+f2"]):
        found.append(_speaker("en", "", variant, number, 1.0, seen))
    for number, variant in enumerate(["+m2", "+f4"], start=8):
        found.append(_speaker("en", "", variant, number, 1.0, {"dev": 20}))
    for number, variant in enumerate(["+m7", "+f4"], start=10):
        found.append(_speaker("en", "", variant, number, 1.0, {"test": 40}))
    seen = {"train": 36, "dev_seen": 3, "test_seen": 4}
    held_out = {"dev": 6, "test": 12}
    for place, accent in enumerate(accents.ACCENTS):
        for number, (variant, strength, counts) in enumerate(
            [("+f3", 1.0, seen), ("+m3", 0.5, seen), (("+m7", "+f4")[place % 2], 0.8, held_out)]
        ):
            found.append(_speaker(accent, accent, variant, number, strength, counts))
    return found


def _speaker(label, accent, variant, number, strength, counts) -> Speaker:
    draw = random.Random(f"{label}{number}")
    voice = espeak.Voice(
        (accent or accents.L1_VOICE) + variant,
        rate=draw.randint(140, 175),
        pitch=draw.randint(35, 65),
        pitch_range=draw.randint(35, 65),
    )
    return Speaker(f"{label}{number}", accent, voice, strength, counts)


def default_corpus(cache: Path) -> SpeechCorpus:
    """The corpus, made in `cache` when it is not there yet; about 15 seconds.

    It is made in a process of its own, because espeak-ng's samples depend a little on what it has
    said before.
    """
    folder = cache.expanduser() / f"espeak-{_version()}"

    def make(unfinished: Path) -> None:
        fresh = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        with fresh:
            fresh.submit(make_corpus, unfinished, speakers()).result()

    return read_corpus(made_once(folder, "utterances.csv", make))


def make_corpus(folder: Path, who: list[Speaker]) -> None:
    """Write audio, TextGrids and utterances.csv of the speakers `who` into a new folder."""
    for name in ("audio", "alignment"):
        (folder / name).mkdir(parents=True)
    texts = _texts()
    utterances = []
    for speaker in who:
        for split, count in speaker.counts.items():
            pool = texts[split.removesuffix("_seen")]
            chosen = random.Random(f"{speaker.name} {split}").sample(range(len(pool)), count)
            for number in sorted(chosen):
                name = f"{speaker.name}-{split.removesuffix('_seen')}{number:03d}"
                audio, grid = speak(pool[number], speaker)
                write_audio(folder / "audio" / f"{name}.flac", audio)
                write_textgrid(folder / "alignment" / f"{name}.TextGrid", grid)
                utterances.append(
                    Utterance(
                        utt_id=name,
                        text=pool[number],
                        audio=f"audio/{name}.flac",
                        speaker=speaker.name,
                        accent=speaker.accent,
                        alignment=f"alignment/{name}.TextGrid",
                        split=split,
                    )
                )
    write_corpus(folder, utterances)


class Told(NamedTuple):
    """What a speaker is told of each phone of each word."""

    words: tuple[str, ...]
    phones: list[tuple[str, ...]]
    mnemonics: list[list[list[str]]]
    draw: random.Random  # for what is left to chance after this


def tell(text: str, speaker: Speaker) -> Told:
    """The phonemes of a text in the mouth of a speaker; the same each time."""
    draw = random.Random(f"{speaker.name} {text}")
    words = split_words(text, "sentence")
    phones = [stressed(word) for word in words]
    told = [accents.mnemonics(word, speaker.accent, speaker.strength, draw) for word in phones]
    return Told(words, phones, told, draw)


def speak(text: str, speaker: Speaker) -> tuple[np.ndarray, TextGrid]:
    """(audio [n] at 16 kHz, words and phones in time) of one utterance."""
    words, phones, told, draw = tell(text, speaker)
    voice = speaker.voice._replace(
        rate=round(speaker.voice.rate * draw.uniform(0.93, 1.07)),
        pitch=speaker.voice.pitch + draw.randint(-4, 4),
    )
    speech = espeak.speak([[m for phone in word for m in phone] for word in told], voice)
    audio = resample(speech.audio / 2**15, speech.rate)
    audio = np.pad(audio, round(PAUSE * RATE))
    audio *= LEVEL / np.sqrt(np.mean(audio**2))
    noise = np.random.default_rng(draw.getrandbits(32)).normal(0, NOISE, len(audio))
    grid = _grid(words, phones, [list(map(len, word)) for word in told], speech, len(audio) / RATE)
    return np.clip(audio + noise, -0.99, 0.99).astype(np.float32), grid


def _grid(words, phones, counts, speech: espeak.Speech, seconds: float) -> TextGrid:
    """The times of words and phones, from the first sample of each of espeak-ng's phonemes."""
    marks = [
        (name, PAUSE + sample / speech.rate) for name, sample in speech.phonemes if name != "_"
    ]
    starts = [time for _, time in marks] + [seconds]
    sounds = iter([i for i, (name, _) in enumerate(marks) if not name.startswith("_")])
    phone_tier: list[Interval] = []
    word_tier: list[Interval] = []
    for word, names, numbers in zip(words, phones, counts, strict=True):
        first = len(phone_tier)
        for name, number in zip(names, numbers, strict=True):
            places = [next(sounds) for _ in range(number)]
            start, end = starts[places[0]], starts[places[-1] + 1]
            if start == end:  # R or L that its vowel has taken in gets the second half of it
                before = phone_tier.pop()
                start = (before.start + before.end) / 2
                phone_tier.append(before._replace(end=start))
            phone_tier.append(Interval(start, end, without_stress(name)))
        word_tier.append(Interval(phone_tier[first].start, phone_tier[-1].end, word))
    return TextGrid(seconds, {"words": tuple(word_tier), "phones": tuple(phone_tier)})


def _texts() -> dict[str, list[str]]:
    every = iter(sentences.make_sentences(sum(N_SENTENCES.values())))
    return {split: [next(every) for _ in range(count)] for split, count in N_SENTENCES.items()}


def _version() -> str:
    """Changes with espeak-ng and with the code that tells it what to say."""
    digest = hashlib.blake2b(metadata.version("espeakng-loader").encode(), digest_size=6)
    for module in (accents, espeak, sentences, inspect.getmodule(speak)):
        digest.update(inspect.getsource(module).encode())
    return digest.hexdigest()

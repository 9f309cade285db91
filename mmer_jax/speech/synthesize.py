"""python -m mmer_jax.speech.synthesize --workdir=W --text "..." --accent=cmn --intensity=0.7

Speaks a sentence with an accent of the strength that is asked for, and writes a wav.
"""

import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmer_jax import cli
from mmer_jax.errors import UserError
from mmer_jax.speech import requests
from mmer_jax.speech.audio import write_audio
from mmer_jax.speech.features import FRAME_SECONDS, RATE
from mmer_jax.speech.phones import PHONES, Pronunciation, pronounce, sequence
from mmer_jax.speech.trained_voice import load_synthesiser
from mmer_jax.speech.vocoder import Vocoder, load_vocoder
from mmer_jax.speech.voice import Request, Spoken, Synthesiser


class Timed(NamedTuple):
    """A request's answer and audio, and how long both took, compiling left out."""

    spoken: Spoken
    audio: np.ndarray
    network_seconds: float
    vocoder_seconds: float


def request_of(
    synthesiser: Synthesiser, said: Pronunciation, accent: str, speaker: str, intensity: str
) -> Request:
    """What the flags ask for; empty: the accent's first speaker, the accent's own intensity."""
    phones, words = sequence(said)
    wanted: float | np.ndarray | None = None
    if intensity:
        values = requests.parse(intensity)
        wanted = float(values[0]) if len(values) == 1 else requests.of_phones(values, words)
    if not speaker and accent in synthesiser.accents:
        speaker = synthesiser.speaker_of(accent)
    return Request(phones, words, speaker, accent, wanted)


def speak(synthesiser: Synthesiser, request: Request, vocoder: Vocoder) -> Timed:
    """Speak once to compile and once more for the time."""
    vocoder(synthesiser.speak([request])[0].mel)
    start = time.perf_counter()
    spoken = synthesiser.speak([request])[0]
    middle = time.perf_counter()
    audio = vocoder(spoken.mel)
    return Timed(spoken, audio, middle - start, time.perf_counter() - middle)


def describe(timed: Timed, request: Request, said: Pronunciation, control: str) -> str:
    """A line of what was spoken, one of how fast, and one for each word."""
    spoken, seconds = timed.spoken, len(timed.audio) / RATE
    total = timed.network_seconds + timed.vocoder_seconds
    asked = spoken.intensity[request.words >= 0]
    what = "weight of the adversary" if control == "adversarial" else "intensity"
    mean = f", {what} {asked.mean():.2f} in the mean of {len(asked)} phones"
    lines = [
        f"speaker {request.speaker}, accent {request.accent or 'none (L1)'}"
        f"{'' if control == 'none' else mean}",
        f"{seconds:.2f} s of speech in {total:.2f} s: real-time factor {total / seconds:.3f} "
        f"(network {timed.network_seconds:.3f} s, vocoder {timed.vocoder_seconds:.3f} s)",
    ]
    for number, word in enumerate(said.words):
        places = np.flatnonzero(request.words == number)
        phones = " ".join(f"{PHONES[request.phones[i]]} {spoken.intensity[i]:.2f}" for i in places)
        length = spoken.durations[places].sum() * FRAME_SECONDS
        lines.append(f"  {word:14} {length:5.2f} s  {phones}")
    return "\n".join(lines)


def add_flags(parser: cli.Parser) -> None:
    parser.add_argument("--workdir", required=True, help="of a trained Ai-TTS; or gs://...")
    parser.add_argument("--seed", type=int, default=0, help="which of the workdir's trials")
    parser.add_argument("--vocoder", type=Path, metavar="FILE.onnx", help="instead of Griffin-Lim")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = cli.Parser(
        prog="python -m mmer_jax.speech.synthesize",
        description="Speak a sentence with an accent of the strength that is asked for.",
    )
    add_flags(parser)
    parser.add_argument("--text", required=True, help="English")
    parser.add_argument(
        "--phones", default="", help="its ARPAbet, words separated by '|', instead of espeak-ng's"
    )
    parser.add_argument("--accent", default="", help="such as cmn; none: L1")
    parser.add_argument("--speaker", default="", help="default: the first one with the accent")
    parser.add_argument(
        "--intensity",
        default="",
        help="0 to 1; or numbers joined by commas, one for each word or phone; default: predicted",
    )
    parser.add_argument("--out", type=Path, default=Path("speech.wav"))
    given = parser.parse_args(arguments)

    def command() -> None:
        if given.out.suffix not in (".wav", ".flac"):
            raise UserError(f"--out is {given.out}; expected a name that ends in .wav or .flac")
        said = pronounce(given.text, given.phones, source="--text")
        synthesiser = load_synthesiser(given.workdir, given.seed)
        vocoder = load_vocoder(given.vocoder)
        request = request_of(synthesiser, said, given.accent, given.speaker, given.intensity)
        timed = speak(synthesiser, request, vocoder)
        given.out.parent.mkdir(parents=True, exist_ok=True)
        write_audio(given.out, timed.audio)
        print(describe(timed, request, said, synthesiser.model.control))
        print(given.out)

    return cli.exit_status(command)


if __name__ == "__main__":
    sys.exit(main())

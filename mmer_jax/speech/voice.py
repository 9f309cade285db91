"""A trained Ai-TTS: requests to speak become log-mel spectrograms."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from mmer_jax.errors import UserError, shorten
from mmer_jax.speech.aitts import AiTTS
from mmer_jax.speech.fastspeech import Prosody, Text, Voice
from mmer_jax.speech.length import frames_of, whole_frames
from mmer_jax.speech.requests import spread

AT_ONCE = 16  # requests in one program
PHONES_STEP, FRAMES_STEP = 16, 64  # widths are padded to multiples, so that few programs are made


class Request(NamedTuple):
    """What to say, who says it and how strong the accent is."""

    phones: Int[np.ndarray, " P"]  # of phones.sequence
    words: Int[np.ndarray, " P"]
    speaker: str
    accent: str  # "": L1
    intensity: float | Float[np.ndarray, " P"] | None  # of the utterance, of phones, the accent's


class Spoken(NamedTuple):
    """A request's answer; what it was told, and what it says."""

    mel: Float[np.ndarray, "F M"]  # natural logarithms
    durations: Int[np.ndarray, " P"]  # of phones in frames
    intensity: Float[np.ndarray, " P"]  # what the network was told of each phone


class Synthesiser:
    """A trained model with the names of its voices.

    Args:
      model: the network.
      params: of one trial.
      speakers, accents: names; accents[0] is "", L1.
      voices: speaker -> the accent of its recordings.
      longest: phones of the longest utterance in training.
    """

    def __init__(
        self,
        model: AiTTS,
        params,
        speakers: Sequence[str],
        accents: Sequence[str],
        voices: dict[str, str],
        longest: int,
    ):
        self.model, self.params = model, params
        self.speakers, self.accents = tuple(speakers), tuple(accents)
        self.voices, self.longest = voices, longest
        self._natural = jax.jit(model.natural_intensity)
        self._spread = jax.jit(spread)
        self._plan = jax.jit(self._planned)
        self._render = jax.jit(self._rendered, static_argnums=5)

    @property
    def takes_intensities(self) -> bool:
        """Whether the control is an intensity; an ablation has none, the baseline a weight."""
        return self.model.control in ("phone", "utterance")

    def speaker_of(self, accent: str) -> str:
        """The first speaker whose recordings have the accent."""
        for name in self.speakers:
            if self.voices.get(name) == accent:
                return name
        raise UserError(f"no voice of this model has the accent '{accent}' (empty: L1)")

    def check(self, request: Request) -> None:
        """UserError where the model has no such voice, or the request makes no sense."""
        place = f"{len(request.phones)} phones"
        if request.accent not in self.accents:
            known = shorten(self.accents[1:], 20)
            raise UserError(f"--accent is '{request.accent}'; expected one of: {known}; none: L1")
        if request.speaker not in self.voices:
            known = shorten(self.voices, 40)
            raise UserError(f"--speaker is '{request.speaker}'; expected one of: {known}")
        if len(request.phones) > 1.5 * self.longest:
            raise UserError(
                f"the text has {place}, the longest in training had {self.longest}; give it "
                "sentence by sentence"
            )
        asked = 0.0 if request.intensity is None else float(np.max(request.intensity))
        if asked > 0 and not request.accent:
            raise UserError(f"an intensity of {asked:g} needs an accent; give --accent as well")
        if request.intensity is not None and self.model.control == "none":
            raise UserError("this model was trained without intensities; leave out --intensity")

    def speak(self, requests: Sequence[Request]) -> list[Spoken]:
        """The answers, in order."""
        for request in requests:
            self.check(request)
        found: list[Spoken] = []
        for start in range(0, len(requests), AT_ONCE):
            found += self._speak_together(requests[start : start + AT_ONCE])
        return found

    def _speak_together(self, requests: Sequence[Request]) -> list[Spoken]:
        count = 1 if len(requests) == 1 else AT_ONCE
        padded = [*requests, *[requests[-1]] * (count - len(requests))]
        width = up(max(len(request.phones) for request in padded), PHONES_STEP)
        phones = padded_table([request.phones for request in padded], width, 0)
        text = Text(phones, padded_table([request.words for request in padded], width, -1))
        speaker = np.array([self.speakers.index(request.speaker) for request in padded], np.int32)
        accent = np.array([self.accents.index(request.accent) for request in padded], np.int32)
        intensity = self._intensities(padded, text, accent)
        told, x, prosody, durations = self._plan(
            self.params, text, Voice(speaker, accent, intensity)
        )
        durations = np.asarray(durations)
        lengths = durations.sum(axis=1)
        steps = up(int(lengths.max()), FRAMES_STEP)
        mel = np.asarray(self._render(self.params, x, text, prosody, durations, steps))
        return [
            Spoken(mel[i, : lengths[i]], durations[i, :n], np.asarray(told)[i, :n])
            for i, n in enumerate(len(request.phones) for request in requests)
        ]

    def _intensities(self, requests, text: Text, accent) -> Float[np.ndarray, "B P"]:
        """Of phones: the list's, the utterance's spread over them, or the accent's own."""
        natural = np.asarray(self._natural(self.params, text, accent))
        if self.model.control == "adversarial":
            natural = np.where(text.spoken, 0.5, 0.0).astype(np.float32)
        means = [r.intensity if isinstance(r.intensity, int | float) else 0.0 for r in requests]
        even = np.asarray(self._spread(natural, np.array(means, np.float32), text.spoken))
        found = np.zeros(text.phones.shape, np.float32)
        for i, request in enumerate(requests):
            if request.intensity is None:
                found[i] = natural[i]
            elif isinstance(request.intensity, int | float):
                found[i] = even[i]
            else:
                found[i, : len(request.intensity)] = request.intensity
        return found

    def _planned(self, params, text: Text, voice: Voice):
        control = self.model.shaped(voice.control, text)
        x, prosody = self.model.plan(params, text, voice._replace(control=control))
        return control, x, prosody, whole_frames(prosody.log_duration, text.phones)

    def _rendered(self, params, x, text: Text, prosody: Prosody, durations, steps: int):
        return self.model.render(params, x, text, prosody, frames_of(durations, steps))


def padded_table(
    rows: Sequence[Int[np.ndarray, " P"]], width: int, fill: int
) -> Int[np.ndarray, "B width"]:
    """Rows of different length as one table."""
    padded = [np.pad(row, (0, width - len(row)), constant_values=fill) for row in rows]
    return np.stack(padded).astype(np.int32)


def up(count: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-int(count) // step) * step

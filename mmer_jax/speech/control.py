"""python -m mmer_jax.speech.control --workdir=W --baseline=W2

Does the voice follow the number? Held-out sentences are synthesised with every accent at 11
intensities, and the frozen recogniser measures them again in the audio that a listener would hear.
The paper's baseline (configs/aitts_baseline.py), whose control is the weight of a
speaker-adversarial loss, speaks the same sentences. Whether its accent grows or fades with the
weight is decided on the dev sentences.

Writes control.csv (every utterance), control_summary.csv and the figure control.png / .svg into
W/control.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from mmer_jax.report.figures.drawing import (
    Drawing,
    colour,
    legend_above,
    marker,
    new_figure,
)
from mmer_jax.speech.ctc import phone_error_rate
from mmer_jax.speech.listener import Heard, Listener
from mmer_jax.speech.vocoder import Vocoder
from mmer_jax.speech.voice import Request, Synthesiser

LEVELS = tuple(round(0.1 * i, 1) for i in range(11))


class Sentence(NamedTuple):
    """A held-out sentence and its L1 recording."""

    text: str
    phones: np.ndarray
    words: np.ndarray
    recording: np.ndarray  # log mel [F, M] of an L1 speaker known from training


class Measured(NamedTuple):
    """A synthesised utterance, measured again."""

    system: str
    accent: str
    sentence: int
    requested: float
    measured: float  # in the audio
    measured_mel: float  # in the spectrogram before the vocoder
    error_rate: float  # phones that the L1 recogniser misses
    of_phones: float  # Spearman's, requested and measured, within the utterance


def measure(
    synthesiser: Synthesiser,
    listener: Listener,
    vocoder: Vocoder,
    sentences: Sequence[Sentence],
    levels: Sequence[float],
    system: str,
    *,
    reverse: bool = False,
) -> list[Measured]:
    """Every accent says every sentence at every level.

    Args:
      synthesiser: of the system.
      listener, vocoder: by which its speech is measured.
      sentences: to say.
      levels: requested intensities, 0 to 1.
      system: its name in the tables.
      reverse: 1 - level is what the synthesiser is told.
    """
    found = []
    for accent in synthesiser.accents[1:]:
        speaker = synthesiser.speaker_of(accent)
        places = [(i, level) for i in range(len(sentences)) for level in levels]
        requests = [
            Request(sentences[i].phones, sentences[i].words, speaker, accent, told)
            for i, told in ((i, 1 - level if reverse else level) for i, level in places)
        ]
        spoken = synthesiser.speak(requests)
        phones = [request.phones for request in requests]
        audio = listener.hear_audio([vocoder(one.mel) for one in spoken], phones)
        mels = listener.hear([one.mel for one in spoken], phones)
        for (i, level), request, said, heard, mel in zip(
            places, requests, spoken, audio, mels, strict=True
        ):
            line = Measured(
                system,
                accent,
                i,
                level,
                heard.mean(request.words),
                mel.mean(request.words),
                phone_error_rate([heard.phones], [list(request.phones)]),
                _within(said.intensity, heard, request.words),
            )
            found.append(line)
    return found


def _within(asked: np.ndarray, heard: Heard, words: np.ndarray) -> float:
    """Spearman's correlation over the phones; NaN where all are asked alike."""
    there = words >= 0
    if np.ptp(asked[there]) == 0 or np.ptp(heard.intensity[there]) == 0:
        return float("nan")
    return float(spearmanr(asked[there], heard.intensity[there]).statistic)


def fades(synthesiser: Synthesiser, listener: Listener, vocoder: Vocoder, sentences) -> bool:
    """Whether the accent fades as the system's number grows."""
    found = measure(synthesiser, listener, vocoder, sentences, (0.0, 0.5, 1.0), "dev")
    return correlation(found) < 0


def correlation(lines: Sequence[Measured]) -> float:
    """Spearman's of requested and measured intensity over all utterances."""
    return float(spearmanr([x.requested for x in lines], [x.measured for x in lines]).statistic)


def summary(lines: Sequence[Measured]) -> list[dict[str, object]]:
    """For each system: its correlation, and means at each level."""
    found = []
    for system in dict.fromkeys(line.system for line in lines):
        mine = [line for line in lines if line.system == system]
        by_sentence: dict[tuple[str, int], list[Measured]] = {}
        for line in mine:
            by_sentence.setdefault((line.accent, line.sentence), []).append(line)
        within = float(np.nanmean([correlation(group) for group in by_sentence.values()]))
        for level in sorted({line.requested for line in mine}):
            here = [line for line in mine if line.requested == level]
            found.append(
                {
                    "system": system,
                    "spearman": correlation(mine),
                    "spearman_within_sentence": within,
                    "requested": level,
                    "measured": float(np.mean([x.measured for x in here])),
                    "measured_std": float(np.std([x.measured for x in here])),
                    "measured_mel": float(np.mean([x.measured_mel for x in here])),
                    "phone_error_rate": float(np.mean([x.error_rate for x in here])),
                    "spearman_of_phones": _mean_number([x.of_phones for x in here]),
                    "utterances": len(here),
                }
            )
    return found


def _mean_number(values: Sequence[float]) -> float:
    """Mean over what is a number; NaN where nothing is."""
    numbers = [value for value in values if np.isfinite(value)]
    return float(np.mean(numbers)) if numbers else float("nan")


def draw(lines: Sequence[dict[str, object]], l1: tuple[float, float]) -> Drawing:
    """Measured intensity and phone error rate over the requested intensity.

    Args:
      lines: of `summary`.
      l1: (intensity, phone error rate) of the L1 recordings through the same vocoder.
    """
    figure = new_figure(2.9)
    panels = figure.subplots(1, 2)
    for axes, key, label in zip(
        panels, ("measured", "phone_error_rate"), ("measured intensity", "phone error rate"),
        strict=True,
    ):  # fmt: skip
        for i, system in enumerate(dict.fromkeys(line["system"] for line in lines)):
            mine = [line for line in lines if line["system"] == system]
            x, y = ([line[name] for line in mine] for name in ("requested", key))
            axes.plot(x, y, color=colour(i), marker=marker(i), label=system)
        reference = l1[0] if key == "measured" else l1[1]
        axes.axhline(reference, color="#777777", ls=":", label="L1 recordings, same vocoder")
        axes.set(xlabel="requested intensity", ylabel=label, ylim=(0, None))
    legend_above(figure, panels)
    header = list(lines[0])
    return Drawing(figure, header, [[line[name] for name in header] for line in lines])

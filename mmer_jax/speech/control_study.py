"""The control experiment: requested intensities, and those measured again in the speech."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from mmer_jax.report.figures.drawing import Drawing, colour, legend_above, marker, new_figure
from mmer_jax.speech.aitts import Judge
from mmer_jax.speech.ctc import phone_error_rate
from mmer_jax.speech.held_out_sentences import Sentence
from mmer_jax.speech.listener import hear, hear_audio
from mmer_jax.speech.vocoder import Vocoder
from mmer_jax.speech.voice import Request, Spoken, Synthesiser


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


class Bench(NamedTuple):
    """By which every system is measured."""

    judge: Judge
    vocoder: Vocoder
    sentences: Sequence[Sentence]


def measure(
    synthesiser: Synthesiser,
    bench: Bench,
    levels: Sequence[float],
    system: str,
    *,
    reverse: bool = False,
) -> list[Measured]:
    """Every accent says every sentence at every level.

    Args:
      synthesiser: of the system.
      bench: measures it.
      levels: requested intensities, 0 to 1.
      system: its name in the tables.
      reverse: 1 - level is what the synthesiser is told.
    """
    found = []
    for accent in synthesiser.accents[1:]:
        speaker = synthesiser.speaker_of(accent)
        for number, sentence in enumerate(bench.sentences):
            told = [1 - level if reverse else level for level in levels]
            spoken = synthesiser.speak(
                [Request(sentence.phones, sentence.words, speaker, accent, one) for one in told]
            )
            found += [
                _measured(bench, sentence, one, system, accent, number, level)
                for level, one in zip(levels, spoken, strict=True)
            ]
    return found


def _measured(
    bench: Bench, sentence: Sentence, spoken: Spoken, system, accent, number, level
) -> Measured:
    phones, words = sentence.phones, sentence.words
    heard = hear_audio(bench.judge, bench.vocoder(spoken.mel), phones, words)
    return Measured(
        system,
        accent,
        number,
        level,
        heard.mean,
        hear(bench.judge, spoken.mel, phones, words).mean,
        phone_error_rate([heard.phones], [phones.tolist()]),
        rank_correlation(spoken.intensity[words >= 0], heard.intensity[words >= 0]),
    )


def fades(synthesiser: Synthesiser, bench: Bench) -> bool:
    """Whether the accent fades as the system's number grows."""
    return correlation(measure(synthesiser, bench, (0.0, 0.5, 1.0), "dev")) < 0


def of_recordings(bench: Bench) -> tuple[float, float]:
    """(measured intensity, phone error rate) of the L1 recordings through the vocoder."""
    heard = [
        hear_audio(bench.judge, bench.vocoder(one.mel), one.phones, one.words)
        for one in bench.sentences
    ]
    spoken = [one.phones.tolist() for one in bench.sentences]
    rate = phone_error_rate([one.phones for one in heard], spoken)
    return float(np.mean([one.mean for one in heard])), rate


def correlation(lines: Sequence[Measured]) -> float:
    """Spearman's of requested and measured intensity over all utterances."""
    return rank_correlation([x.requested for x in lines], [x.measured for x in lines])


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's; NaN where all of one are alike."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(spearmanr(x, y).statistic)


def summary(lines: Sequence[Measured]) -> list[dict[str, object]]:
    """For each system: its correlation, and means at each level."""
    found = []
    for system in dict.fromkeys(line.system for line in lines):
        mine = [line for line in lines if line.system == system]
        by_sentence: dict[tuple[str, int], list[Measured]] = {}
        for line in mine:
            by_sentence.setdefault((line.accent, line.sentence), []).append(line)
        within = _mean_number([correlation(group) for group in by_sentence.values()])
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
    labels = {"measured": "measured intensity", "phone_error_rate": "phone error rate"}
    for axes, (key, label), reference in zip(panels, labels.items(), l1, strict=True):
        for i, system in enumerate(dict.fromkeys(line["system"] for line in lines)):
            mine = [line for line in lines if line["system"] == system]
            x, y = ([line[name] for line in mine] for name in ("requested", key))
            axes.plot(x, y, color=colour(i), marker=marker(i), label=system)
        axes.axhline(reference, color="#777777", ls=":", label="L1 recordings, same vocoder")
        axes.set(xlabel="requested intensity", ylabel=label, ylim=(0, None))
    legend_above(figure, panels)
    header = list(lines[0])
    return Drawing(figure, header, [[line[name] for name in header] for line in lines])

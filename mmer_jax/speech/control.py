"""python -m mmer_jax.speech.control --workdir=W --compare W2 [W3 ...]

Does the voice follow the number? Held-out sentences are synthesised with every accent at 11
intensities, and the frozen recogniser measures them again in the audio that a listener would hear.
The workdirs after --compare say the same: the paper's baseline (configs/aitts_baseline.py), whose
control is the weight of a speaker-adversarial loss, and ablations. Whether a baseline's accent
grows or fades with its weight is decided on the dev sentences.

A network could learn to please the one recogniser that it was trained with. With --listener another
one measures, which training has not used.

Writes W/control (or W/control_listener): utterances.csv, and control.csv with its figure.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from scipy.stats import spearmanr

from mmer_jax import cli
from mmer_jax.errors import UserError
from mmer_jax.report.figures.drawing import (
    Drawing,
    colour,
    legend_above,
    look,
    marker,
    new_figure,
    save,
)
from mmer_jax.speech.aitts import Judge
from mmer_jax.speech.aitts_task import open_annotated
from mmer_jax.speech.ctc import phone_error_rate
from mmer_jax.speech.held_out import write_table
from mmer_jax.speech.held_out_sentences import Sentence, held_out_sentences
from mmer_jax.speech.listener import Heard, hear, hear_audio
from mmer_jax.speech.recogniser import load_recogniser
from mmer_jax.speech.synthesize import add_flags
from mmer_jax.speech.trained_voice import load_judge, load_synthesiser, open_corpus, read_run
from mmer_jax.speech.vocoder import Vocoder, load_vocoder
from mmer_jax.speech.voice import Request, Spoken, Synthesiser

DEV_SENTENCES = 3  # that decide the direction of a baseline
LEVELS = tuple(round(0.1 * i, 1) for i in range(11))


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
        _within(spoken.intensity, heard, words),
    )


def _within(asked: np.ndarray, heard: Heard, words: np.ndarray) -> float:
    """Spearman's correlation over the phones; NaN where all are asked alike."""
    there = words >= 0
    if np.ptp(asked[there]) == 0 or np.ptp(heard.intensity[there]) == 0:
        return float("nan")
    return float(spearmanr(asked[there], heard.intensity[there]).statistic)


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


def name_of(workdir: Path) -> str:
    """What a workdir's system is called."""
    config = read_run(workdir).config
    names = {
        "phone": "Ai-TTS",
        "utterance": "Ai-TTS, utterance level only",
        "adversarial": "baseline: weight of the speaker-adversarial loss",
    }
    control = config.model.control
    if control not in names:
        raise UserError(f"{workdir} was trained without intensities; there is nothing to control")
    consistent = control == "adversarial" or config.stages.aitts.consistency_weight > 0
    return names[control] + ("" if consistent else ", no consistency")


def make_benches(given, console: Console) -> tuple[Bench, Bench]:
    """What measures on test and on dev sentences, as the flags say."""
    judge = load_judge(given.workdir, given.recogniser)
    data = open_corpus(given.workdir, judge, console)
    if given.listener:
        config = read_run(given.workdir).config
        other = load_recogniser(given.listener)
        judge = Judge(other, open_annotated(config, other, console)[1])
    vocoder = load_vocoder(given.vocoder)
    test = Bench(judge, vocoder, held_out_sentences(data, "test", given.sentences))
    return test, Bench(judge, vocoder, held_out_sentences(data, "dev", DEV_SENTENCES))


def run(given, console: Console) -> None:
    """What the flags ask for."""
    bench, dev = make_benches(given, console)
    lines: list[Measured] = []
    for workdir in [given.workdir, *given.compare]:
        name, synthesiser = name_of(workdir), load_synthesiser(workdir, given.seed)
        reverse = not synthesiser.takes_intensities and fades(synthesiser, dev)
        lines += measure(synthesiser, bench, LEVELS, name, reverse=reverse)
        mine = [line for line in lines if line.system == name]
        console.print(f"{name}: Spearman {correlation(mine):.3f}", highlight=False)
    l1 = of_recordings(bench)
    folder = given.workdir / ("control_listener" if given.listener else "control")
    folder.mkdir(exist_ok=True)
    write_table(folder / "utterances.csv", [line._asdict() for line in lines])
    with look():
        save(draw(summary(lines), l1), folder, "control")
    console.print(
        f"L1 recordings: intensity {l1[0]:.3f}, phone error rate {l1[1]:.3f}\n{folder}",
        highlight=False,
        soft_wrap=True,
    )


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = cli.Parser(
        prog="python -m mmer_jax.speech.control",
        description="Measure whether the accent follows the intensity that is asked for.",
    )
    add_flags(parser)
    parser.add_argument(
        "--compare", type=Path, nargs="*", default=[], metavar="DIR", help="workdirs to set beside"
    )
    parser.add_argument("--recogniser", default="", help="its workdir, if it has been moved")
    parser.add_argument(
        "--listener",
        default="",
        metavar="DIR",
        help="measure with this recogniser, which training has not used, and its own scale",
    )
    parser.add_argument("--sentences", type=int, default=6, help="held-out ones, for each accent")
    given = parser.parse_args(arguments)
    return cli.exit_status(lambda: run(given, Console()))


if __name__ == "__main__":
    sys.exit(main())

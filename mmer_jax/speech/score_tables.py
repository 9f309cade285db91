"""Scores of utterances as files and as text for a person."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from mmer_jax import cli
from mmer_jax.speech.gop import word_means
from mmer_jax.speech.intensity import IntensityScale
from mmer_jax.speech.phones import PHONES
from mmer_jax.speech.scoring import Scored


def write_scores(
    out: Path, found: Sequence[Scored], scale: IntensityScale, reference: Mapping[str, Scored]
) -> None:
    """scores.csv with a line for each phone, utterances.csv with one for each utterance."""
    phone_rows: list[tuple] = [
        ("utt_id", "word", "phone", "start", "end", "goodness", "intensity", "l1_voice_goodness")
    ]
    rows: list[tuple] = [("utt_id", "goodness", "intensity", "words", "heard", "l1_voice_goodness")]
    for scored in found:
        beside = reference.get(scored.utt_id)
        for i in np.flatnonzero(scored.words >= 0):
            phone_rows.append(
                (
                    scored.utt_id,
                    scored.word_names[scored.words[i]],
                    PHONES[scored.phones[i]],
                    f"{scored.starts[i]:.3f}",
                    f"{scored.ends[i]:.3f}",
                    f"{scored.goodness[i]:.4f}",
                    f"{float(scale.intensity(scored.goodness)[i]):.4f}",
                    "" if beside is None else f"{beside.goodness[i]:.4f}",
                )
            )
        words = word_means(scale.intensity(scored.goodness), scored.words)
        rows.append(
            (
                scored.utt_id,
                f"{scored.mean:.4f}",
                f"{utterance_intensity(scored, scale):.4f}",
                " ".join(f"{w}:{v:.2f}" for w, v in zip(scored.word_names, words, strict=True)),
                " ".join(PHONES[p] for p in scored.heard),
                "" if beside is None else f"{beside.mean:.4f}",
            )
        )
    _write(out / "scores.csv", phone_rows)
    _write(out / "utterances.csv", rows)


def write_faults(out: Path, faults: Mapping[str, str]) -> None:
    """faults.csv: what was left out, and why."""
    _write(out / "faults.csv", [("utt_id", "fault"), *faults.items()])


def utterance_intensity(scored: Scored, scale: IntensityScale) -> float:
    """Mean intensity of the phones."""
    return float(scale.intensity(scored.goodness)[scored.words >= 0].mean())


def phone_table(scored: Scored, scale: IntensityScale, reference: Scored | None) -> Table:
    """The phones of one utterance, words with their means."""
    table = Table("word", "phone", "start (s)", "end (s)", "goodness", "intensity")
    if reference is not None:
        table.add_column("L1 voice")
    intensity = scale.intensity(scored.goodness)
    means = word_means(intensity, scored.words)
    before = -1
    for i in np.flatnonzero(scored.words >= 0):
        number = int(scored.words[i])
        name = f"{scored.word_names[number]} ({means[number]:.2f})" if number != before else ""
        cells = [
            name,
            PHONES[scored.phones[i]],
            f"{scored.starts[i]:.2f}",
            f"{scored.ends[i]:.2f}",
            f"{scored.goodness[i]:.2f}",
            f"{intensity[i]:.2f}",
        ]
        table.add_row(*cells, *([f"{reference.goodness[i]:.2f}"] if reference is not None else []))
        before = number
    return table


def summary(
    found: Sequence[Scored],
    scale: IntensityScale,
    reference: Mapping[str, Scored],
    n_faults: int,
) -> str:
    """A line or two about all utterances."""
    means = np.array([scored.mean for scored in found])
    intensity = np.array([utterance_intensity(scored, scale) for scored in found])
    text = (
        f"{len(found)} utterance(s) scored, {n_faults} left out: goodness {_spread(means)}, "
        f"intensity {_spread(intensity)}"
    )
    if reference:
        pairs = [(s.mean, reference[s.utt_id].mean) for s in found if s.utt_id in reference]
        learners, own = np.array(pairs).T
        worse = np.mean(learners < own)
        text += (
            f"\nL1 voice on the same sentences: goodness {_spread(own)}; "
            f"{100 * worse:.0f} % of the utterances lie below it"
        )
    return text


def _spread(values: np.ndarray) -> str:
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{values.mean():.2f} ± {values.std():.2f}"


def _write(path: Path, rows) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    cli.write_out(path, text.getvalue())

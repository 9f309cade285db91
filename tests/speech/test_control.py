"""The control experiment's numbers, and the page of samples."""

import io
import pathlib
import wave

import numpy as np
import pytest
from aitts_setting import make_batch, make_judge, make_synthesiser

from mmer_jax.errors import UserError
from mmer_jax.speech import control
from mmer_jax.speech.control import LEVELS
from mmer_jax.speech.control_study import Bench, Measured, correlation, draw, measure, summary
from mmer_jax.speech.features import N_MELS
from mmer_jax.speech.held_out_sentences import Sentence
from mmer_jax.speech.phones import pronounce, sequence
from mmer_jax.speech.samples import Sample, wav_bytes, write_page


def lines(system, measured):
    """A system that answers every request with `measured(level, sentence)`."""
    return [
        Measured(system, "cmn", s, level, measured(level, s), 0.0, level / 2, float("nan"))
        for s in range(3)
        for level in LEVELS
    ]


def test_a_system_that_follows_and_one_that_does_not():
    follows = lines("a", lambda level, s: level**2)
    offset = lines("b", lambda level, s: level + 5 * s)
    table = summary(follows + offset + lines("c", lambda level, s: -level))
    by_system = {line["system"]: line for line in table}
    assert by_system["a"]["spearman"] == pytest.approx(1.0)
    assert by_system["b"]["spearman"] < 0.5 < by_system["b"]["spearman_within_sentence"]
    assert by_system["c"]["spearman"] == pytest.approx(-1.0)
    assert len(table) == 3 * len(LEVELS)
    assert table[3]["requested"] == 0.3 and table[3]["measured"] == pytest.approx(0.09)
    assert correlation(follows) == pytest.approx(1.0)


def test_figure_has_a_row_for_each_level():
    drawing = draw(summary(lines("a", lambda level, s: level)), (0.1, 0.2))
    assert len(drawing.rows) == len(LEVELS)
    assert list(drawing.header)[0] == "system"


def test_every_accent_says_every_sentence_at_every_level():
    phones, words = sequence(pronounce("we call", "W IY | K AO L"))
    sentence = Sentence("we call", phones, words, np.ones_like(phones), np.zeros((9, N_MELS)))
    synthesiser = make_synthesiser()
    bench = Bench(make_judge(), lambda mel: np.full(256 * len(mel), 1e-3), [sentence] * 2)
    found = measure(synthesiser, bench, (0.0, 1.0), "tiny")
    places = [(line.accent, line.sentence, line.requested) for line in found]
    assert places == [(a, s, x) for a in ("cmn", "de") for s in (0, 1) for x in (0.0, 1.0)]
    assert all(0 <= line.measured <= 1 and line.error_rate >= 0 for line in found)


def test_the_page_holds_sounds_and_pictures(tmp_path):
    batch, audio = make_batch(), np.linspace(-1, 1, 1000)
    n, frames = batch.n_phones[0], batch.n_frames[0]
    columns = (batch.phones, batch.durations, batch.intensity)
    parts = (np.asarray(column)[0, :n] for column in columns)
    sample = Sample("<0.5>", audio, batch.mel[0, :frames], *parts)
    write_page(tmp_path / "samples.html", "Samples", ["about"], [("one", [sample, sample])])
    page = (tmp_path / "samples.html").read_text()
    assert page.count("data:audio/wav;base64,") == page.count("data:image/png;base64,") == 2
    assert "&lt;0.5&gt;" in page and "<0.5>" not in page
    with wave.open(io.BytesIO(wav_bytes(audio))) as file:
        assert (file.getframerate(), file.getnframes()) == (16_000, 1000)
        np.testing.assert_allclose(
            np.frombuffer(file.readframes(1000), "<i2") / 32767, audio, atol=1e-4
        )


def test_systems_of_a_kind_are_told_apart_and_none_is_measured_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(control, "name_of", lambda workdir: "Ai-TTS")
    places = [str(tmp_path / name / "aitts") for name in ("a", "b")]
    assert names(places) == [f"Ai-TTS ({place})" for place in places]
    with pytest.raises(UserError, match="name a workdir twice"):
        names([places[0], f"{tmp_path}/b/../a/aitts"])


def names(places):
    return control.names_of(places, [pathlib.Path(place) for place in places])

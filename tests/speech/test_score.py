"""The command that scores pronunciation, on an untrained recogniser of a tiny run."""

import csv
import shutil

import numpy as np
import pytest
import soundfile
from rich.console import Console
from speech_corpora import tiny_config

from mmer_jax.speech import score, training
from mmer_jax.speech.phones import INDEX, PHONES, SIL
from mmer_jax.speech.recogniser import load_recogniser
from mmer_jax.speech.scoring import posteriors_of
from mmer_jax.speech.scoring import score as score_one


@pytest.fixture(scope="module")
def workdir(spoken, one_width, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("score") / "work"
    config = tiny_config(spoken, workdir.parent / "cache")
    config.stages.recogniser.constant_epochs, config.stages.recogniser.decay_epochs = 1, 0
    training.train(config, workdir, Console(quiet=True))
    return workdir


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def command(*arguments):
    return score.main([*map(str, arguments), "--compilation_cache="])


def test_a_recording_is_scored_phone_by_phone(spoken, workdir, tmp_path, capsys):
    audio = next((spoken / "audio").glob("en10-test*.flac"))
    text = next(u["text"] for u in table(spoken / "utterances.csv") if audio.stem == u["utt_id"])
    status = command(
        *("--workdir", workdir, "--audio", audio, "--text", text, "--out", tmp_path, "--compare")
    )
    assert status == 0
    shown = capsys.readouterr().out
    assert "L1 voice" in shown and "1 utterance(s) scored, 0 left out" in shown
    rows = table(tmp_path / "scores.csv")
    assert {row["word"] for row in rows} == set(text.split())
    for row in rows:
        assert float(row["goodness"]) <= 0 and 0 <= float(row["intensity"]) <= 1
        assert float(row["end"]) > float(row["start"]) and float(row["l1_voice_goodness"]) <= 0
    assert (tmp_path / "figures" / f"{audio.stem}.png").stat().st_size > 10_000


def test_in_a_folder_the_faulty_are_named_and_the_others_go_on(spoken, workdir, tmp_path, capsys):
    folder = tmp_path / "takes"
    folder.mkdir()
    takes = sorted((spoken / "audio").glob("en0-train*.flac"))[:2]
    texts = {u["utt_id"]: u["text"] for u in table(spoken / "utterances.csv")}
    for number, take in enumerate(takes):
        shutil.copy(take, folder / f"good{number}.flac")
    soundfile.write(folder / "mute.wav", np.zeros(9000), 16000)
    lines = [f"good{n},{texts[take.stem]}" for n, take in enumerate(takes)]
    lines += ["mute,hello", "gone,hello", "good1x,\u4f60"]
    (folder / "utterances.csv").write_text("utt_id,text\n" + "\n".join(lines), encoding="utf-8")
    status = command(
        *("--workdir", workdir, "--from", folder, "--out", tmp_path / "out", "--figures", 0),
        "--compare",
    )
    assert status == 1
    captured = capsys.readouterr()
    assert (
        "mute.wav is silent" in captured.err and "2 utterance(s) scored, 3 left out" in captured.out
    )
    assert [row["utt_id"] for row in table(tmp_path / "out" / "utterances.csv")] == [
        "good0",
        "good1",
    ]
    assert [r["utt_id"] for r in table(tmp_path / "out" / "faults.csv")] == [
        "mute",
        "gone",
        "good1x",
    ]
    assert (tmp_path / "out" / "comparison.png").exists()


def test_where_nothing_can_be_scored_the_status_is_2(workdir, tmp_path, capsys):
    (tmp_path / "utterances.csv").write_text("utt_id,text\ngone,hello\n")
    assert command("--workdir", workdir, "--from", tmp_path, "--out", tmp_path / "out") == 2
    assert "none of 1 utterances could be scored" in capsys.readouterr().err


def test_posteriors_in_a_file_score_like_the_recogniser_that_made_them(
    spoken, workdir, tmp_path, capsys
):
    audio = next((spoken / "audio").glob("es0-train*.flac"))
    text = next(u["text"] for u in table(spoken / "utterances.csv") if audio.stem == u["utt_id"])
    common = ("--audio", audio, "--text", text, "--figures", 0)
    assert command(*common, "--workdir", workdir, "--out", tmp_path / "own") == 0
    from mmer_jax.speech import features
    from mmer_jax.speech.audio import read_audio

    mel = features.log_mel(features.magnitudes(read_audio(audio)))
    np.savez(
        tmp_path / "posteriors.npz",
        log_posteriors=posteriors_of(load_recogniser(workdir), mel),
        symbols=np.array(PHONES),
        frame_shift=0.032,
    )
    given = ("--posteriors", tmp_path / "posteriors.npz", "--out", tmp_path / "given")
    assert command(*common, *given) == 0
    assert "on the scale of their own phones" in capsys.readouterr().out
    own, external = (table(tmp_path / name / "scores.csv") for name in ("own", "given"))
    for a, b in zip(own, external, strict=True):
        assert (a["phone"], a["start"]) == (b["phone"], b["start"])
        assert abs(float(a["goodness"]) - float(b["goodness"])) < 2e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--audio", "x.wav"), "give either --audio and --text, or --from"),
        ((), "give either --audio and --text, or --from"),
        (("--audio", "x.wav", "--text", "hello"), "x.wav does not exist"),
        (("--from", ".", "--posteriors", "."), "give either --workdir, of a recogniser, or"),
    ],
)
def test_what_is_missing_is_told(workdir, tmp_path, arguments, message, capsys):
    assert command("--workdir", workdir, *arguments, "--out", tmp_path) == 2
    assert message in capsys.readouterr().err


def test_posteriors_hear_no_l1_voice(tmp_path, capsys):
    assert command("--from", ".", "--posteriors", ".", "--compare", "--out", tmp_path) == 2
    assert "--compare needs a recogniser" in capsys.readouterr().err


def test_phones_that_are_all_as_good_have_no_accent():
    ids, words = np.array([40, 3, 7, 40]), np.array([-1, 0, 0, -1])
    times = np.zeros(4)
    found = score.Scored("u", ("a",), ids, words, times, times, np.full(4, -0.5), ())
    assert score._scale_of([found]).intensity(np.array([-0.5, -1.5])).tolist() == [0.0, 1.0]


def test_a_pause_belongs_to_no_phone():
    """K AA with a pause of three frames between, certain posteriors."""
    best = [SIL, INDEX["K"], INDEX["K"], SIL, SIL, SIL, INDEX["AA"], SIL]
    posteriors = np.where(np.eye(41)[best] > 0, -0.01, -9.0).astype(np.float32)
    ids = np.array([40, INDEX["K"], INDEX["AA"], 40])
    found = score_one("u", ("ka",), ids, np.array([-1, 0, 0, -1]), posteriors, 0.032)
    assert found.starts[1:3].tolist() == [0.032, 6 * 0.032]
    np.testing.assert_allclose(found.ends[1:3], [3 * 0.032, 7 * 0.032])
    np.testing.assert_allclose(found.goodness[1:3], 0, atol=1e-6)
    assert found.heard == (INDEX["K"], INDEX["AA"]) and found.mean == 0

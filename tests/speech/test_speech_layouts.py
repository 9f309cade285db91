"""Importers of LJSpeech and L2-ARCTIC, on folders laid out like theirs."""

import numpy as np
import pytest
import soundfile

from mmer_jax.errors import UserError
from mmer_jax.speech.corpus import read_corpus
from mmer_jax.speech.layouts import importing, l2arctic, ljspeech
from mmer_jax.speech.textgrid import Interval, TextGrid, write_textgrid


def record(path, rate, level=0.2):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, level * np.sin(np.arange(rate) * 0.1), rate)


@pytest.fixture
def lj(tmp_path):
    root = tmp_path / "LJSpeech-1.1"
    record(root / "wavs" / "LJ001-0001.wav", 22050)
    record(root / "wavs" / "LJ001-0002.wav", 22050, level=0)
    (root / "metadata.csv").write_text("LJ001-0001|Dr. Who|Doctor Who\nLJ001-0002|x|ex\n")
    return root


def test_ljspeech_is_imported_and_silent_files_are_left_out(lj, tmp_path, capsys):
    out = tmp_path / "out"
    assert importing.run("ljspeech", "", ljspeech.find, [str(lj), str(out)]) == 0
    (only,) = read_corpus(out).utterances
    assert (only.utt_id, only.text, only.accent) == ("LJ001-0001", "Doctor Who", "")
    assert soundfile.info(read_corpus(out).audio_path(only)).samplerate == 16000
    told = capsys.readouterr().out
    assert "left out 1" in told and "LJ001-0002.wav is silent" in told


def test_a_folder_is_never_overwritten(lj, tmp_path, capsys):
    assert importing.run("ljspeech", "", ljspeech.find, [str(lj), str(tmp_path)]) == 2
    assert "exists and is no corpus" in capsys.readouterr().err
    out = str(tmp_path / "out")
    assert importing.run("ljspeech", "", ljspeech.find, [str(lj), out]) == 0
    assert importing.run("ljspeech", "", ljspeech.find, [str(lj), out]) == 2
    assert "already has 1 of these utterances" in capsys.readouterr().err


def test_a_broken_list_is_refused(lj):
    (lj / "metadata.csv").write_text("LJ001-0001|Doctor Who\n")
    with pytest.raises(UserError, match="line 1: 2 fields"):
        ljspeech.find(lj)


@pytest.fixture
def l2(tmp_path):
    root = tmp_path / "L2-ARCTIC"
    for speaker in ("BWC", "NJS"):
        record(root / speaker / "wav" / "arctic_a0001.wav", 44100)
        text = root / speaker / "transcript" / "arctic_a0001.txt"
        text.parent.mkdir()
        text.write_text("Author of the danger trail\n")
    (root / "BWC" / "textgrid").mkdir()
    grid = TextGrid(1.0, {"words": (Interval(0.0, 1.0, "author"),)})
    write_textgrid(root / "BWC" / "textgrid" / "arctic_a0001.TextGrid", grid)
    return root


def test_l1_of_one_release_and_accents_of_another_make_a_corpus(lj, l2, tmp_path, capsys):
    out = tmp_path / "out"
    assert importing.run("l2arctic", "", l2arctic.find, [str(l2), str(out)]) == 0
    assert "it has no L1 speech yet, which training needs" in capsys.readouterr().out
    assert importing.run("ljspeech", "", ljspeech.find, [str(lj), str(out)]) == 0
    assert f"train with --config.data.corpus={out}" in capsys.readouterr().out
    corpus = read_corpus(out)
    assert [u.accent for u in corpus.utterances] == ["cmn", "es", ""]
    assert all(corpus.audio_path(u).exists() for u in corpus.utterances)


def test_l2arctic_brings_accents_and_alignments(l2, tmp_path):
    out = tmp_path / "out"
    assert importing.copy_corpus(l2arctic.find(l2), out) == []
    first, second = read_corpus(out).utterances
    assert (first.utt_id, first.speaker, first.accent) == ("BWC_arctic_a0001", "BWC", "cmn")
    assert (second.accent, second.alignment) == ("es", "")
    assert read_corpus(out).alignment_path(first).read_bytes().startswith(b"File type")


def test_every_speaker_of_l2arctic_has_one_accent():
    names = [name for speakers in l2arctic.ACCENTS.values() for name in speakers]
    assert len(names) == len(set(names)) == 24


def test_other_folders_are_not_l2arctic(tmp_path):
    with pytest.raises(UserError, match="no speaker's folder"):
        l2arctic.find(tmp_path)

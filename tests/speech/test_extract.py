"""Feature directories and batches; faulty utterances are named and left out."""

import csv
import shutil

import numpy as np
import pytest
import soundfile

from mmer_jax.errors import UserError
from mmer_jax.speech.corpus import read_corpus
from mmer_jax.speech.dataset import open_features
from mmer_jax.speech.extract import extract_features, split_of


@pytest.fixture(scope="module")
def folder(spoken, tmp_path_factory):
    return extract_features(read_corpus(spoken), tmp_path_factory.mktemp("cache"))


def open_from(folder, source):
    return open_features(folder, source=source, records_dir=folder.parent / "records")


def test_features_are_made_once(spoken, folder):
    before = (folder / "mel.npz").stat().st_mtime_ns
    assert extract_features(read_corpus(spoken), folder.parent) == folder
    assert (folder / "mel.npz").stat().st_mtime_ns == before


def test_records_and_memory_give_the_same_batches(folder):
    data = [open_from(folder, source) for source in ("records", "directory")]
    tables = data[0].batches(np.arange(len(data[0])), 8, None)
    for a, b in zip(data[0].stream(tables), data[1].stream(tables), strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


def test_every_row_is_in_one_batch_and_order_is_a_pure_function(folder):
    data = open_from(folder, "directory")
    rows = data.rows("train")
    tables = data.batches(rows, 5, np.random.default_rng((0, 3)))
    again = data.batches(rows, 5, np.random.default_rng((0, 3)))
    other = data.batches(rows, 5, np.random.default_rng((0, 4)))
    flat = np.concatenate(tables)
    assert sorted(flat[flat >= 0].tolist()) == sorted(rows.tolist())
    assert np.concatenate(again).tolist() == flat.tolist() != np.concatenate(other).tolist()


def test_a_batch_holds_what_the_utterances_are(folder):
    data = open_from(folder, "directory")
    (batch,) = data.stream([np.array([3, -1, 0])])
    assert batch.weights.tolist() == [1, 0, 1]
    assert (batch.durations.sum(axis=1) == batch.n_frames).all()
    assert batch.n_frames.tolist() == data.n_frames[[3, 0, 0]].tolist()
    assert not batch.mel[0, batch.n_frames[0] :].any()
    last = batch.n_phones - 1
    assert (batch.phones[np.arange(3), last] == 40).all() and (batch.phones[:, 0] == 40).all()
    assert data.accents == ("", "es") and set(batch.accent.tolist()) == {0}


def test_rows_are_chosen_by_split_and_accent(folder):
    data = open_from(folder, "directory")
    assert len(data.rows("train", "")) == 18 and len(data.rows("train")) == 22
    assert set(data.columns["speaker"][data.rows("test")]) == {"en10", "es2"}


def test_faulty_utterances_are_named_and_the_others_go_on(spoken, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(spoken, broken)
    path = broken / "utterances.csv"
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    soundfile.write(broken / rows[0]["audio"], np.zeros(16000), 16000)
    soundfile.write(broken / rows[1]["audio"], np.sign(np.sin(np.arange(16000))), 16000)
    rows[2] |= {"text": "\u4f60\u597d"}
    (broken / rows[3]["alignment"]).write_text("nonsense")
    audio, rate = soundfile.read(broken / rows[4]["audio"])
    soundfile.write(broken / rows[4]["audio"], audio[: rate // 3], rate)
    rows[4] |= {"alignment": ""}
    (broken / rows[5]["audio"]).unlink()
    rows[6] |= {"split": "validation"}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    said = []
    folder = extract_features(read_corpus(broken), tmp_path, said.append)
    faults = dict(list(csv.reader((folder / "faults.csv").read_text().splitlines()))[1:])
    expected = "silent|clipped|cannot pronounce|no whole TextGrid|phones|does not exist"
    expected = [*expected.split("|"), "its split is 'validation'; expected one of: train, dev"]
    for row, words in zip(rows[:7], expected, strict=True):
        assert words in faults[row["utt_id"]]
    assert len(said) == 6 and "2 more" in said[-1]
    assert len(open_from(folder, "directory")) == len(rows) - 7


def test_a_corpus_of_faults_is_refused(tmp_path):
    (tmp_path / "utterances.csv").write_text("utt_id,text\na,hello\n")
    with pytest.raises(UserError, match="all 1 utterances are faulty"):
        extract_features(read_corpus(tmp_path), tmp_path / "cache")


def test_audio_outside_of_the_folder_is_not_read(tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (tmp_path / "x.wav").write_bytes(b"")
    (corpus / "utterances.csv").write_text("utt_id,text,audio\na,hello,../x.wav\n")
    with pytest.raises(UserError, match="outside"):
        read_corpus(corpus).audio_path(read_corpus(corpus).utterances[0])


def test_a_sentence_is_in_one_split_whoever_says_it():
    found = {split_of(f"sentence number {i}") for i in range(60)}
    assert found == {"train", "dev", "test"}
    assert split_of("The Old  Bear") == split_of("the old bear")


def test_a_corpus_needs_texts(tmp_path):
    (tmp_path / "utterances.csv").write_text("utt_id,audio\na,a.wav\n")
    with pytest.raises(UserError, match="no column 'text'; its columns are: utt_id, audio"):
        read_corpus(tmp_path)

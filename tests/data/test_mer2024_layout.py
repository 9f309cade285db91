"""The MER2024 layout, on small folders in exactly that form, through the command."""

import io
import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
from releases import MER2024_EMOTIONS, make_mer2024, mer2024_labels, save_clips

from mmer_jax.data.feature_dir import read_directory, read_utterances
from mmer_jax.data.layouts import mer2024
from mmer_jax.data.splits import make_folds

NAMES = tuple(mer2024.FEATURES)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "release"
    make_mer2024(root)
    return root


@pytest.fixture
def refused(root, tmp_path, capsys):
    def run(*flags):
        assert mer2024.main([str(root), str(tmp_path / "out"), *flags]) == 2
        assert sorted(p.name for p in tmp_path.iterdir()) == ["release"]
        return capsys.readouterr().err

    return run


def test_every_value_order_and_column(root, tmp_path, capsys):
    features = save_clips(
        root, [clip for member in mer2024_labels().values() for clip in member], seed=1
    )
    assert mer2024.main([str(root), str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "all 4 clips of test2 are 'neutral': no labels" in said
    corpus = read_directory(tmp_path / "out", NAMES, label="emotion", classes=MER2024_EMOTIONS)
    rows = [
        (clip, part, told)
        for part, member in mer2024_labels().items()
        for clip, told in member.items()
    ]
    assert corpus.ids.tolist() == [clip for clip, _, _ in rows]
    found = corpus.read(np.arange(len(rows)))
    for row, (clip, part, told) in enumerate(rows):
        assert {name: column[row] for name, column in corpus.columns.items()} == {
            "utt_id": clip,
            "dialogue": clip,
            "turn": "0",
            "speaker": "",
            "split": "train" if part == "train_corpus" else "test",
            "part": part.removesuffix("_corpus"),
            "emotion": "" if part == "test2_corpus" else told["emo"],
            "valence": {1.5: "1.5", -2: "-2.0"}.get(told.get("val"), ""),
        }
        for name in NAMES:
            np.testing.assert_array_equal(found[name][row], features[name][clip])
    assert corpus.labelled.sum() == 36 and (corpus.labels[30:36, 0] == np.arange(6)).all()
    assert len(make_folds(corpus, "kfold", kfold_by="dialogue")) == 5


def test_unlabelled_clips_have_empty_cells(root, tmp_path, capsys):
    save_clips(root, ["zz_2", "zz_1"])
    assert mer2024.main([str(root), str(tmp_path / "a")]) == 0
    assert "2 not among the utterances, left out: zz_1, zz_2" in capsys.readouterr().out
    assert mer2024.main([str(root), str(tmp_path / "b"), "--unlabelled"]) == 0
    columns = read_utterances(tmp_path / "b" / "utterances.csv")
    assert columns["utt_id"][-2:].tolist() == ["zz_1", "zz_2"] and len(columns["utt_id"]) == 42
    for name in ("split", "part", "emotion", "valence"):
        assert columns[name][-2:].tolist() == ["", ""]
    (root / "label-6way.npz").unlink()
    assert mer2024.main([str(root), str(tmp_path / "c")]) == 2
    assert "--unlabelled imports clips without labels" in capsys.readouterr().err
    assert mer2024.main([str(root), str(tmp_path / "d"), "--unlabelled"]) == 0
    assert not any(read_utterances(tmp_path / "d" / "utterances.csv")["emotion"])


def test_unlabelled_clips_need_no_memory_for_their_features(tmp_path):
    """9 MB of features are imported with far less of it in memory at a time."""
    root, rng = tmp_path / "release", np.random.default_rng(0)
    clips = [f"clip_{i:05d}" for i in range(150)]
    for folder in mer2024.FEATURES.values():
        (root / folder).mkdir(parents=True)
        block = rng.normal(size=5120).astype(np.float32)
        for clip in clips:
            np.save(root / folder / f"{clip}.npy", block)
    tracemalloc.start()
    assert mer2024.main([str(root), str(tmp_path / "out"), "--unlabelled"]) == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = sum(p.stat().st_size for p in (tmp_path / "out").glob("*.npz"))
    assert size > 9e6 and peak < 2e6
    with np.load(tmp_path / "out" / "text.npz") as archive:
        assert archive["features"].shape == (150, 5120)
        assert (archive["features"] == archive["features"][0]).all()


def test_a_label_file_that_would_run_something_does_not(root, refused, tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    np.savez(root / "label-6way.npz", train_corpus=Hostile())
    assert "label-6way.npz, train_corpus: it names posix.system" in refused()
    np.savez(root / "label-6way.npz", train_corpus={"a": {"emo": Hostile()}})
    assert "nothing of it was run" in refused()


def test_all_that_is_wrong_with_the_features_is_said_at_once(root, refused, tmp_path, capsys):
    audio, text, visual = (root / folder for folder in mer2024.FEATURES.values())
    (audio / "sample_00000003.npy").unlink()
    (visual / "samplenew_00000001.npy").unlink()
    whole = (text / "sample_00000004.npy").read_bytes()
    (text / "sample_00000004.npy").write_bytes(whole[:-1])
    np.save(text / "sample_00000005.npy", np.zeros((2, 2, 6)))
    message = refused()
    assert "lacks 1 utterance(s): sample_00000003;" in message
    assert "lacks 1 utterance(s): samplenew_00000001;" in message
    assert "2 that cannot be used: sample_00000004 is truncated: 151 bytes" in message
    assert "sample_00000005 has shape [2, 2, 6]" in message
    (text / "sample_00000004.npy").unlink()
    (text / "sample_00000005.npy").unlink()
    assert mer2024.main([str(root), str(tmp_path / "out"), "--missing=absent"]) == 0
    assert "text is absent for 2: sample_00000004, sample_00000005" in capsys.readouterr().out
    corpus = read_directory(tmp_path / "out", NAMES, label="emotion", nonfinite="missing")
    assert np.argwhere(~corpus.present).tolist() == [[3, 0], [4, 1], [5, 1], [31, 2]]


def test_faulty_label_files(root, refused):
    path = root / "label-6way.npz"

    def message(**members):
        np.savez(path, **members)
        return refused()

    train = mer2024_labels()["train_corpus"]
    assert "has no train_corpus, only: test1" in message(test1_corpus=train)
    assert "expected only pickled dicts" in message(train=train)
    assert "with dtype int64, expected pickled objects" in message(train_corpus=np.arange(3))
    assert "is a NoneType, expected a dict of clips" in message(train_corpus=None)
    assert "2 clip(s) without {'emo': name}: a, b" in message(
        train_corpus={**train, "a": "happy", "b": {"val": 1}}
    )
    assert "1 id(s) that cannot be file names" in message(
        train_corpus={**train, "../x": {"emo": "sad"}}
    )
    assert "1 duplicate utterance id(s): sample_00000002" in message(
        train_corpus=train, test1_corpus={"sample_00000002": {"emo": "sad"}}
    )
    assert "1 valence(s) that are no number: sample_00000001 has 'high'" in message(
        train_corpus={**train, "sample_00000001": {"emo": "sad", "val": "high"}}
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "label-6way.npz cannot be read: File is not a zip file" in refused()


def archive_of(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def test_zip_tricks(root, refused):
    path = root / "label-6way.npz"
    content = io.BytesIO()
    np.lib.format.write_array(content, np.array(mer2024_labels()["train_corpus"], object))
    archive_of(path, **{"../train_corpus.npy": content.getvalue()})
    assert "a member '../train_corpus.npy' whose name leaves the archive" in refused()
    with pytest.warns(UserWarning, match="Duplicate name"):
        with zipfile.ZipFile(path, "w") as archive:
            for _ in range(2):
                archive.writestr("train_corpus.npy", content.getvalue())
    assert "has 'train_corpus.npy' twice" in refused()
    archive_of(path, **{"train_corpus.npy": content.getvalue() + b"\0" * 2**26})
    assert "has 'train_corpus' with 67" in refused()
    head = content.getvalue()[:128]
    archive_of(path, **{"train_corpus.npy": head + pickle.dumps(10**30)})
    assert "an integer of more than 64 bits" in refused()

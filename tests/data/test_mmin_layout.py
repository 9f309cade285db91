"""The MMIN release layout, on small files in exactly that form."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
from releases import make_mmin

from mmer_jax.data.feature_dir import read_directory
from mmer_jax.data.layouts.mmin import import_mmin
from mmer_jax.data.splits import make_folds
from mmer_jax.errors import UserError


@pytest.fixture
def release(tmp_path):
    return tmp_path / "release", *make_mmin(tmp_path / "release")


def test_import_gives_the_releases_folds_and_features(release, tmp_path):
    root, features, label = release
    import_mmin(root, tmp_path / "out")
    corpus = read_directory(tmp_path / "out", ("audio", "text", "visual"), label="emotion4")
    folds = make_folds(corpus, "session_speaker")
    expected = {
        frozenset(n.decode() for n in np.load(f / "tst_int2name.npy")[:, 0])
        for f in (root / "target").iterdir()
    }
    assert {frozenset(corpus.ids[fold.test]) for fold in folds} == expected
    for fold in folds:
        assert len(fold.train) == 64 and len(fold.validation) == len(fold.test) == 8
    row = 11
    own = features["L/bert_large", corpus.ids[row]]
    np.testing.assert_array_equal(corpus.read(np.array([row]))["text"][0, : len(own)], own)
    assert (
        corpus.spec.tasks[0].classes[corpus.labels[row, 0]]
        == ("angry", "happy", "neutral", "sad")[label[corpus.ids[row]]]
    )


def test_the_command(release, tmp_path):
    command = [sys.executable, "-m", "mmer_jax.data.layouts.mmin"]
    done = subprocess.run(
        [*command, str(release[0]), str(tmp_path / "out")], capture_output=True, text=True
    )
    assert done.returncode == 0 and "--config.data.splits=session_speaker" in done.stdout
    done = subprocess.run([*command, str(tmp_path), "x"], capture_output=True, text=True)
    assert done.returncode == 2 and "no numbered fold folders" in done.stderr


def test_an_utterance_without_features_is_named(release, tmp_path):
    root = release[0]
    with h5py.File(root / "V/denseface.h5", "a") as file:
        del file["Ses03F_impro01_F002"]
    with pytest.raises(UserError, match="denseface.h5 lacks 1 utterance.s.: Ses03F_impro01_F002"):
        import_mmin(root, tmp_path / "out")


def test_labels_and_names_must_match(release, tmp_path):
    root = release[0]
    np.save(root / "target/4/val_label.npy", np.eye(4))
    with pytest.raises(UserError, match="val_label.npy has 4 rows"):
        import_mmin(root, tmp_path / "out")

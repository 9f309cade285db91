"""What predictions of a retrieving method need: whose rows a database holds, that it is kept."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import shrunk, train, write_features
from safetensors import safe_open
from test_predict import NAMES, in_memory, results, scored

import mmer_jax
from configs import ramer
from mmer_jax import database
from mmer_jax.data import feature_dir
from mmer_jax.data.corpus import RawModality
from mmer_jax.data.feature_dir import read_directory
from mmer_jax.data.feed import Resident
from mmer_jax.data.missing import full_pattern
from mmer_jax.data.splits import make_folds
from mmer_jax.data.unlabelled import read_unlabelled
from mmer_jax.database import Database
from mmer_jax.errors import UserError
from mmer_jax.programs import TrialData, make_batch

MARKED = 11  # an utterance like no other
FOLDS = (0, 1, 2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = write_features(tmp_path_factory.mktemp("data") / "features", n=70)
    columns, raw = feature_dir.read_raw(root, NAMES)
    marked = raw["audio"].features.copy()
    marked[MARKED] = (50, -50, 50)
    feature_dir.write_directory(root, columns, raw | {"audio": RawModality(marked, None, "audio")})
    return root


@pytest.fixture(scope="module")
def more(tmp_path_factory):
    """An unlabelled directory that has no file of `face`, and of one utterance no audio."""
    root = tmp_path_factory.mktemp("more")
    rng = np.random.default_rng(5)
    lengths = rng.integers(1, 12, size=9)  # some longer than in training
    audio = rng.normal(size=(9, 3)).astype(np.float32)
    audio[4] = np.nan
    raw = {
        "text": RawModality(rng.normal(size=(lengths.sum(), 4)).astype(np.float32), lengths, ""),
        "audio": RawModality(audio, None, ""),
    }
    feature_dir.write_directory(root, {"utt_id": [f"x{i}" for i in range(9)]}, raw)
    return root


def small(root, more, **overrides):
    config = shrunk(ramer.get_config(), trials__folds=list(FOLDS), **overrides)
    with config.unlocked():
        config.data.label, config.data.unlabelled = "emotion", (str(more),)
        config.eval.protocols = ("full", "pattern")
    return config


@pytest.fixture(scope="module")
def run(root, more, tmp_path_factory):
    """(workdir, what evaluation saw) of three folds."""
    workdir = tmp_path_factory.mktemp("run")
    return workdir, scored(small(root, more), root, workdir)


def folds_of(root):
    corpus = read_directory(root, NAMES, label="emotion")
    return corpus, make_folds(corpus, "kfold", kfold=3)


def database_of(workdir, fold):
    """(ids, arrays) of a fold's file."""
    from safetensors import safe_open

    (path,) = workdir.glob(f"databases/*/{FOLDS.index(fold)}.safetensors")
    with safe_open(path, "np") as file:
        return json.loads(file.metadata()["ids"]), {k: file.get_tensor(k) for k in file.keys()}


def hidden_of(model, features, lengths, present):
    """What the base model of a single member says of an utterance."""
    trained = model.trained
    mine = jax.tree.map(lambda x: jnp.asarray(x[0]), trained.weights)
    zero = jnp.zeros((1, 1), jnp.int32)
    trial = TrialData(
        **{k: mine[k] for k in ("mean", "std", "label_mean", "label_std", "clip")},
        key=None, rate=None, hyper={}, frozen={}, constants={},
    )  # fmt: skip
    resident = Resident(features, lengths, present, zero)
    one = jnp.ones((1, 1), bool)
    batch = make_batch(trained.spec, resident, trial, zero, zero, one, full_pattern(3))
    return np.asarray(trained.stage.prepare(mine["earlier"], batch)["hidden"][0])


@pytest.mark.slow
def test_a_database_holds_training_and_unlabelled_utterances_only(root, run):
    """The marked utterance is in it where it trains, and nowhere else."""
    corpus, folds = folds_of(root)
    x = corpus.read(np.array([MARKED]))
    lengths = {"text": corpus.lengths["text"][[MARKED]]}
    trains = []
    for fold in FOLDS:
        ids, arrays = database_of(run[0], fold)
        assert ids == [f"x{i}" for i in range(9)] + list(corpus.ids[folds[fold].train])
        present = np.ones((1, 3), bool)
        marked = hidden_of(mmer_jax.load(run[0], folds=[fold]), x, lengths, present)
        nearest = np.abs(arrays["hidden"] - marked[None]).max(axis=(1, 2)).min()
        trains.append(MARKED in folds[fold].train)
        assert (nearest < 1e-5) == trains[-1]
    assert set(trains) == {True, False}


def test_what_unlabelled_utterances_lack_is_absent(run):
    _, arrays = database_of(run[0], 0)
    np.testing.assert_array_equal(arrays["present"][:9, 2], False)
    np.testing.assert_array_equal(arrays["present"][:9, 1], np.arange(9) != 4)
    assert (arrays["hidden"][~arrays["present"]] == 0).all()
    assert (np.abs(arrays["hidden"][arrays["present"]]).max(axis=-1) > 0).all()


def test_predictions_equal_evaluation(root, run):
    workdir, seen = run
    labels = read_directory(root, NAMES, label="emotion").columns["emotion"]
    for (fold, seed), (rows, outputs) in seen.items():
        model = mmer_jax.load(workdir, folds=[fold])
        accuracy = results(workdir, "WA", fold, seed)
        for pattern, logits in outputs.items():
            found = model.predict(in_memory(root, rows, pattern))
            expected = np.asarray(jax.nn.softmax(logits))
            np.testing.assert_allclose(found.probabilities, expected, rtol=0, atol=1e-5)
            hits = np.mean(np.array(found.labels) == labels[rows])
            assert accuracy[found.used_names[0]] == pytest.approx(hits, abs=5.1e-7)


def test_predictions_equal_validation_during_training(root, run):
    """Neighbours computed once for all rows, and those of new utterances: the same."""
    corpus, folds = folds_of(root)
    workdir, _ = run
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for fold in FOLDS:
        best = max(
            x["validation_score"] for x in lines if (x["fold"], x["stage"]) == (fold, "ramer")
        )
        rows = folds[fold].validation
        model, counts = mmer_jax.load(workdir, folds=[fold]), np.zeros((2, 2))
        for pattern in mmer_jax.data.missing.missing_patterns(3):
            found = model.predict(in_memory(root, rows, pattern))
            guess = found.probabilities.argmax(axis=1)
            np.add.at(counts, (corpus.labels[rows, 0], guess), 1)
        assert best == pytest.approx(np.mean(np.diag(counts) / counts.sum(axis=1)), abs=1e-6)


def test_other_databases_are_refused(root, run, more, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(run[0], workdir)
    first, second, _ = sorted(workdir.glob("databases/*/*"))
    with safe_open(first, "np") as file:
        header, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    first.write_bytes(second.read_bytes())
    with pytest.raises(UserError, match="is of encoder"):
        mmer_jax.load(workdir)
    first.unlink()
    with pytest.raises(UserError, match="does not exist; predictions need it"):
        mmer_jax.load(workdir)
    ids = [i.replace("x0", "y0") for i in json.loads(header["ids"])]
    database.save(first, Database(ids, arrays), encoder=header["encoder"])
    mmer_jax.load(workdir)  # does not know which there were
    config = small(root, more)
    with config.unlocked():
        config.eval.protocols = ("full",)
        config.data.root, config.data.source = str(root), "directory"
        config.data.modalities, config.data.splits, config.data.kfold = NAMES, "kfold", 3
    with pytest.raises(UserError, match="not expected: y0; not there: x0"):
        train(config, workdir)


def test_other_unlabelled_utterances_are_another_run(root, run, more, tmp_path):
    workdir, other = tmp_path / "copy", tmp_path / "other"
    shutil.copytree(run[0], workdir)
    shutil.copytree(more, other)
    columns, raw = feature_dir.read_raw(other, ("text", "audio"))
    feature_dir.write_directory(other, columns | {"utt_id": [f"y{i}" for i in range(9)]}, raw)
    config = small(root, other)
    with config.unlocked():
        config.data.root, config.data.source = str(root), "directory"
        config.data.modalities, config.data.splits, config.data.kfold = NAMES, "kfold", 3
    with pytest.raises(UserError, match="unlabelled there"):
        train(config, workdir)


def test_unlabelled_directories_that_do_not_fit(root, more, tmp_path):
    corpus = read_directory(root, NAMES, label="emotion")
    assert read_unlabelled((), corpus) is None
    with pytest.raises(UserError, match="of the corpus or of another directory: u0, u1"):
        read_unlabelled((str(root),), corpus)
    with pytest.raises(UserError, match="another directory: x0, x1"):
        read_unlabelled((str(more), str(more)), corpus)
    with pytest.raises(UserError, match="expected 3 as in training"):
        wide = RawModality(np.zeros((2, 5), np.float32), None, "")
        feature_dir.write_directory(tmp_path, {"utt_id": ["a", "b"]}, {"audio": wide})
        read_unlabelled((str(tmp_path),), corpus)
    with pytest.raises(UserError, match="has none of: text, audio, face"):
        (tmp_path / "audio.npz").unlink()
        read_unlabelled((str(tmp_path),), corpus)

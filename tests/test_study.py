"""hardness.csv of whole runs: whose neighbours, which labels, which error; and predictions.

HARDY-MER on a small directory of dialogues, of classes and of a real-valued label.
"""

import collections
import csv
import itertools
from unittest import mock

import jax
import numpy as np
import pytest
from helpers import shrunk, train
from test_recall import hidden_of

import mmer_jax
from configs import hardy, ramer
from mmer_jax.data import feature_dir
from mmer_jax.data.corpus import RawModality
from mmer_jax.data.feature_dir import read_directory
from mmer_jax.data.splits import make_folds
from mmer_jax.group import GroupTraining
from mmer_jax.predict import main
from mmer_jax.report.neighbours import read

pytestmark = pytest.mark.slow
NAMES = ("audio", "text", "visual")
DIMS = {"audio": 4, "text": 5, "visual": 3}
N = 61
BLIND = 3  # a dialogue without any visual features


def write_dialogues(root, *, marked=None):
    """Fifteen dialogues of four turns and one of a single one, of five speakers."""
    rng = np.random.default_rng(0)
    dialogue, labels = np.arange(N) // 4, rng.integers(2, size=N)
    raw = {}
    for name, dim in DIMS.items():
        x = (rng.normal(size=(N, dim)) + 1.5 * labels[:, None]).astype(np.float32)
        if name == "visual":
            x[dialogue == BLIND] = np.nan
        if marked is not None:
            x[marked] = 50
        raw[name] = RawModality(x, None, name)
    score = labels - 0.5 + 0.1 * rng.normal(size=N)
    if marked is not None:
        labels[marked], score[marked] = 1 - labels[marked], 9.0
    columns = {
        "utt_id": np.array([f"u{i}" for i in range(N)]),
        "emotion": np.array(["glad", "sad"])[labels],
        "score": np.array([f"{x:.3f}" for x in score]),
        "speaker": np.array([f"s{d % 5}" for d in dialogue]),
        "dialogue": np.array([f"d{d}" for d in dialogue]),
        "turn": np.array([str(i % 4) for i in range(N)]),
    }
    feature_dir.write_directory(root, columns, raw)
    return root


def small(config, root, **overrides):
    """Three folds, an epoch for each stage: no validation utterance chooses anything."""
    made = shrunk(config, **{"data__label": "emotion"} | overrides)
    with made.unlocked():
        made.data.update(root=str(root), source="directory", modalities=NAMES)
        made.data.update(splits="kfold", kfold=3, nonfinite="missing")
        made.eval.protocols = ("full", "pattern")
        for stage in made.stages.values():
            stage.update(batch_size=8, constant_epochs=1, decay_epochs=0)
    return made


def lines_of(workdir):
    with (workdir / "hardness.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def folds_of(root):
    corpus = read_directory(root, NAMES, label="emotion", nonfinite="missing")
    return corpus, make_folds(corpus, "kfold", kfold=3)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_dialogues(tmp_path_factory.mktemp("data") / "features")


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    train(small(hardy.get_config(), root, eval__study="all"), workdir)
    return workdir


def test_lines_are_of_every_utterance_and_pattern(root, run):
    corpus, folds = folds_of(root)
    counts = collections.Counter(
        (int(x["fold"]), x["split"], x["available"]) for x in lines_of(run)
    )
    patterns = ["+".join(p) for n in (1, 2) for p in itertools.combinations(NAMES, n)]
    assert counts == {
        (f, split, pattern): len(getattr(fold, split))
        for f, fold in enumerate(folds)
        for split in ("train", "validation", "test")
        for pattern in patterns
    }
    labels = dict(zip(corpus.ids, corpus.columns["emotion"], strict=True))
    assert all(x["label"] == labels[x["utt_id"]] for x in lines_of(run))
    assert all(x["error"] == str(int(x["label"] != x["prediction"])) for x in lines_of(run))


def test_errors_are_those_of_results(run):
    with (run / "results.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["protocol"] == "pattern"]
    accuracy = {(r["fold"], r["condition"]): float(r["value"]) for r in rows if r["metric"] == "WA"}
    errors = collections.defaultdict(list)
    for x in lines_of(run):
        if x["split"] == "test":
            errors[x["fold"], x["available"]].append(int(x["error"]))
    assert errors.keys() == accuracy.keys()
    for key, value in errors.items():
        assert 1 - np.mean(value) == pytest.approx(accuracy[key], abs=1e-6)


def test_neighbours_are_training_utterances_with_their_labels(root, run):
    corpus, folds = folds_of(root)
    labels = dict(zip(corpus.ids, corpus.columns["emotion"], strict=True))
    seen = 0
    for x in lines_of(run):
        train_ids = set(corpus.ids[folds[int(x["fold"])].train])
        found = [x[f"neighbour{n}"] for n in range(1, 6)]
        if not x["hardness"]:  # nothing is left of it
            assert x["available"] == "visual" and not any(found)
            continue
        assert set(found) <= train_ids - {x["utt_id"]} and len(set(found)) == 5
        assert [x[f"label{n}"] for n in range(1, 6)] == [labels[name] for name in found]
        assert 0.5 <= float(x["hardness"]) < 1 and float(x["direct"]) >= 0
        seen += 1
    assert seen > 900


def test_predictions_of_a_fold_are_those_of_hardness_csv(root, run):
    """load().predict of whole dialogues, of which a modality or two is withheld."""
    corpus, folds = folds_of(root)
    rows = folds[1].test
    x = corpus.read(rows)
    given = {name: corpus.columns[name][rows] for name in ("dialogue", "turn")}
    model = mmer_jax.load(run, folds=[1])
    wanted = {
        (line["utt_id"], line["available"]): line["prediction"]
        for line in lines_of(run)
        if (line["fold"], line["split"]) == ("1", "test")
    }
    for pattern in ("audio", "audio+text", "text+visual"):
        part = {name: x[name] for name in pattern.split("+")}
        if "visual" in part:
            there = corpus.present[rows, 2]
            part["visual"] = [v if ok else None for v, ok in zip(x["visual"], there, strict=True)]
        found = model.predict(
            part, dialogues=given["dialogue"].tolist(), turns=given["turn"].astype(float).tolist()
        )
        assert found.labels == [wanted[name, pattern] for name in corpus.ids[rows]]


def test_the_command_predicts_the_dialogues_of_a_directory(root, run, tmp_path):
    out = tmp_path / "predictions.csv"
    assert main([f"--workdir={run}", f"--from={root}", f"--out={out}", "--folds=1"]) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    corpus, _ = folds_of(root)
    assert [row["utt_id"] for row in rows] == list(corpus.ids)
    blind = corpus.columns["dialogue"] == f"d{BLIND}"
    assert {row["used"] for row, b in zip(rows, blind, strict=True) if b} == {"audio+text"}
    x = corpus.read(np.arange(N))
    x["visual"] = [v if ok else None for v, ok in zip(x["visual"], ~blind, strict=True)]
    dialogues, turns = (corpus.columns[name] for name in ("dialogue", "turn"))
    found = mmer_jax.load(run, folds=[1]).predict(
        x, dialogues=dialogues.tolist(), turns=turns.astype(float).tolist()
    )
    np.testing.assert_allclose(
        [float(row["p:sad"]) for row in rows], found.probabilities[:, 1], atol=2e-6
    )


def test_encoders_that_train_on_have_a_database_by_their_best_parameters(root, tmp_path):
    """RAMER with refresh_epochs: the workdir's database, and what is predicted with it."""
    config = small(ramer.get_config(), root, trials__folds=[0], stages__ramer__refresh_epochs=1)
    with config.unlocked():
        config.stages.ramer.constant_epochs = 3
    prepares = []
    original = GroupTraining._prepare

    def spy(self, stage, *more):
        prepares.append(stage.name)
        return original(self, stage, *more)

    with mock.patch.object(GroupTraining, "_prepare", spy):
        train(config, tmp_path)
    assert prepares == ["ramer_base"] + 3 * ["ramer"]
    model, (corpus, folds) = mmer_jax.load(tmp_path), folds_of(root)
    earlier = model.trained.weights["earlier"]
    moved = [
        abs(a - b).max()
        for name in ("encoder_audio", "encoder_visual")
        for a, b in zip(
            jax.tree.leaves(earlier["ramer"][name]),
            jax.tree.leaves(earlier["ramer_base"][name]),
            strict=True,
        )
    ]
    assert max(moved) > 1e-4
    stored = model.trained.weights["database"]["hidden"][0]
    for place, row in enumerate(folds[0].train[:3]):
        x = corpus.read(np.array([row]))
        there = corpus.present[[row]]
        hidden = hidden_of(model, x, {}, there)
        np.testing.assert_allclose(stored[place], hidden, atol=1e-5)
    x, wanted = corpus.read(folds[0].test), lines_of(tmp_path)
    found = model.predict({"audio": x["audio"], "text": x["text"]}).labels
    assert found == [x["prediction"] for x in wanted if x["available"] == "audio+text"]


def test_a_real_valued_label_in_dialogues_of_one_turn(root, tmp_path):
    """All of the method on single utterances; labels in their own unit."""
    config = small(
        hardy.get_config(), root, data__label="score", data__dialogues="none", trials__folds=[0]
    )
    results, _ = train(config, tmp_path)
    found = {(r.condition, r.metric): float(r.value) for r in results}
    corpus = read_directory(root, NAMES, label="score", nonfinite="missing")
    (fold,) = make_folds(corpus, "kfold", kfold=3)[:1]
    lines = [x for x in lines_of(tmp_path) if x["available"] == "audio+text"]
    assert [x["utt_id"] for x in lines] == list(corpus.ids[fold.test])
    labels = corpus.labels[fold.test, 0]
    np.testing.assert_allclose([float(x["label"]) for x in lines], labels, rtol=1e-5)
    errors = [float(x["error"]) for x in lines]
    assert np.mean(errors) == pytest.approx(found["audio+text", "MAE"], abs=1e-5)
    x = corpus.read(fold.test)
    model = mmer_jax.load(tmp_path)
    values = model.predict({"audio": x["audio"], "text": x["text"]}).values
    np.testing.assert_allclose(values, [float(x["prediction"]) for x in lines], atol=1e-4)
    study = read(tmp_path / "hardness.csv", classes=False)
    assert study.measure == "hardness" and list(study.chance) == [(0, 0)]

"""From a trained workdir: predictions equal evaluation; the command; what a workdir must hold."""

import csv
import json
import re
import shutil
from unittest import mock

import jax
import numpy as np
import pytest
from helpers import shrunk, train, write_features

import mmer_jax
from configs import ifmmin, utt_fusion
from mmer_jax import evaluate
from mmer_jax.data.feature_dir import read_directory
from mmer_jax.errors import UserError
from mmer_jax.predict import main
from mmer_jax.sweep import load_sweep

NAMES = ("text", "audio", "face")


def scored(config, root, workdir, **kwargs):
    """Train; returns {(fold, seed): (test rows, {pattern: outputs})} as evaluation saw them."""
    found = {}
    original = evaluate.score_trial

    def spy(corpus, trial, rows, outputs, conditions, *more, **method):
        patterns = evaluate.needed_patterns(conditions, None)
        found[trial.fold, trial.seed] = (
            rows,
            dict(zip(map(tuple, patterns), outputs[None], strict=True)),
        )
        return original(corpus, trial, rows, outputs, conditions, *more, **method)

    with config.unlocked():
        config.data.root, config.data.source = str(root), "directory"
        config.data.modalities, config.data.splits, config.data.kfold = NAMES, "kfold", 3
    with mock.patch("mmer_jax.evaluate.score_trial", spy):
        train(config, workdir, **kwargs)
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_features(tmp_path_factory.mktemp("data") / "features", n=70)


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    """(workdir, what evaluation saw) of IF-MMIN with two folds and two seeds."""
    workdir = tmp_path_factory.mktemp("run")
    config = shrunk(ifmmin.get_config(), trials__folds=[0, 2], trials__seeds=2)
    with config.unlocked():
        config.data.label = "emotion"
    return workdir, scored(config, root, workdir)


@pytest.fixture(scope="module")
def sweep(root, tmp_path_factory):
    """(workdir, what evaluation saw) of a real-valued label, at the second point of a sweep."""
    workdir = tmp_path_factory.mktemp("sweep")
    path = workdir / "points.py"
    path.write_text(
        "def sweep():\n"
        "    yield {'stages.utt_fusion.learning_rate': 1e-9}\n"
        "    yield {'model.embedding': 12, 'model.classifier': [6], 'data.clip_std': 1.0,\n"
        "           'stages.utt_fusion.learning_rate': 1e-2}\n"
    )
    config = shrunk(utt_fusion.get_config(), trials__folds=[1])
    with config.unlocked():
        config.data.label = "score"
    return workdir, scored(config, root, workdir, points=load_sweep(path, config))


def in_memory(root, rows, pattern=(True,) * 3):
    """Features of rows of a directory as `predict` takes them, some modalities withheld."""
    corpus = read_directory(root, NAMES, label="emotion")
    x = corpus.read(rows)
    x["text"] = [
        steps[:length]
        for steps, length in zip(x["text"], corpus.lengths["text"][rows], strict=True)
    ]
    return {name: x[name] for name, there in zip(NAMES, pattern, strict=True) if there}


def results(workdir, metric, fold, seed):
    """(protocol, condition) -> value of results.csv."""
    with (workdir / "results.csv").open(newline="") as file:
        return {
            r["condition"]: float(r["value"])
            for r in csv.DictReader(file)
            if (r["metric"], r["fold"], r["seed"]) == (metric, str(fold), str(seed))
            and r["protocol"] in ("full", "pattern")
        }


# ---- predictions equal evaluation ----


def test_predictions_equal_evaluation(root, run):
    workdir, seen = run
    labels = read_directory(root, NAMES, label="emotion").columns["emotion"]
    assert set(seen) == {(f, s) for f in (0, 2) for s in (0, 1)}
    for (fold, seed), (rows, outputs) in seen.items():
        model = mmer_jax.load(workdir, folds=[fold], seeds=[seed])
        assert model.members == ((fold, seed),)
        accuracy = results(workdir, "WA", fold, seed)
        assert len(accuracy) == len(outputs) == 7
        for pattern, logits in outputs.items():
            found = model.predict(in_memory(root, rows, pattern))
            expected = np.asarray(jax.nn.softmax(logits))
            np.testing.assert_allclose(found.probabilities, expected, rtol=0, atol=2e-6)
            hits = np.mean(np.array(found.labels) == labels[rows])
            assert accuracy[found.used_names[0]] == pytest.approx(hits, abs=5.1e-7)


def test_values_of_the_chosen_point_equal_evaluation(root, sweep):
    workdir, seen = sweep
    (rows, outputs), model = seen[1, 0], mmer_jax.load(workdir)
    assert len(seen) == 1 and model.classes == ()
    assert model.trained.weights["clip"] == 1.0
    labels = read_directory(root, NAMES, label="score").labels[rows, 0]
    errors = results(workdir, "MAE", 1, 0)
    for pattern, values in outputs.items():
        found = model.predict(in_memory(root, rows, pattern))
        np.testing.assert_allclose(found.values, values[:, 0], rtol=1e-5, atol=1e-6)
        error = np.abs(found.values - labels).mean()
        assert errors[found.used_names[0]] == pytest.approx(error, abs=1e-6)


def test_the_ensemble_is_over_folds_and_seeds(root, run):
    workdir, _ = run
    rows = np.arange(10)
    model = mmer_jax.load(workdir)
    assert set(model.members) == {(f, s) for f in (0, 2) for s in (0, 1)}
    found = model.predict(in_memory(root, rows), members=True)
    single = [
        mmer_jax.load(workdir, folds=[f], seeds=[s]).predict(in_memory(root, rows)).probabilities
        for f, s in model.members[1:3]
    ]
    np.testing.assert_allclose(found.members[1:3], single, rtol=0, atol=2e-6)
    mean = found.members.mean(axis=0)
    np.testing.assert_allclose(found.probabilities, mean, rtol=0, atol=2e-6)
    assert len(mmer_jax.load(workdir, folds=[2]).members) == 2


# ---- the command ----


def predict(workdir, root, out, *flags):
    """Returns the lines of predictions.csv."""
    arguments = [f"--workdir={workdir}", f"--from={root}", f"--out={out}", *flags]
    assert main([*arguments, "--compilation_cache="]) == 0
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def to_predict(root, place, *, keep=NAMES):
    """The features of `root` without anything of utterances.csv but the ids."""
    place.mkdir()
    ids = read_directory(root, NAMES, label="emotion").ids
    (place / "utterances.csv").write_text("utt_id\n" + "\n".join(ids) + "\n")
    for name in keep:
        shutil.copy(root / f"{name}.npz", place)
    return place


def change(path, **changed):
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{**arrays, **changed})


def test_the_command_writes_what_the_api_says(root, run, tmp_path, capsys):
    workdir, _ = run
    lines = predict(workdir, to_predict(root, tmp_path / "f"), tmp_path / "new" / "p.csv")
    expected = mmer_jax.load(workdir).predict(in_memory(root, np.arange(70)))
    assert list(lines[0]) == ["utt_id", "used", "prediction", "p:glad", "p:sad"]
    assert [line["utt_id"] for line in lines] == [f"u{i}" for i in range(70)]
    assert [line["prediction"] for line in lines] == expected.labels
    assert {line["used"] for line in lines} == {"text+audio+face"}
    assert all(re.fullmatch(r"[01]\.\d{6}", line["p:sad"]) for line in lines)
    found = [[float(line["p:glad"]), float(line["p:sad"])] for line in lines]
    np.testing.assert_allclose(found, expected.probabilities, rtol=0, atol=1.1e-6)
    shown = capsys.readouterr().out
    assert "70 utterances" in shown and "text+audio+face" in shown
    assert "mean of 4 model(s) (2 fold(s), 2 seed(s))" in shown and "p.csv" in shown


def test_file_row_and_number_missing_are_the_same(root, run, tmp_path):
    """Audio absent of all, of u3 and u5 by their rows, and of them by a NaN."""
    workdir, _ = run
    whole = predict(workdir, root, tmp_path / "whole.csv")
    without = predict(workdir, to_predict(root, tmp_path / "file", keep=NAMES[::2]), tmp_path / "a")
    assert {line["used"] for line in without} == {"text+face"}
    by_row = to_predict(root, tmp_path / "row")
    by_nan = to_predict(root, tmp_path / "nan")
    with np.load(by_row / "audio.npz") as archive:
        features = archive["features"]
    left = np.random.default_rng(0).permutation(np.delete(np.arange(70), [3, 5]))
    names = np.array([f"u{i}" for i in left])
    np.savez(by_row / "audio.npz", features=features[left], utt_id=names)
    features[[3, 5], 1] = np.nan
    change(by_nan / "audio.npz", features=features)
    for place in (by_row, by_nan):
        found = predict(workdir, place, tmp_path / f"{place.name}.csv")
        assert found[3] == without[3] and found[5] == without[5]
        rest = [line for i, line in enumerate(found) if i not in (3, 5)]
        assert rest == [line for i, line in enumerate(whole) if i not in (3, 5)]


def test_values_and_utterances_with_nothing(root, sweep, tmp_path, capsys):
    place = to_predict(root, tmp_path / "f", keep=("text",))
    with np.load(place / "text.npz") as archive:
        lengths, features = archive["lengths"], archive["features"]
    features[: lengths[0]] = np.nan
    change(place / "text.npz", features=features)
    lines = predict(sweep[0], place, tmp_path / "p.csv", "--batch_size=16")
    assert list(lines[0].items()) == [("utt_id", "u0"), ("used", ""), ("value", "")]
    assert lines[1]["used"] == "text" and np.isfinite(float(lines[1]["value"]))
    assert "none: no prediction" in capsys.readouterr().out


def test_the_benchmark_gives_both_batches(run, capsys):
    flags = [f"--workdir={run[0]}", "--folds=0", "--seeds=1", "--compilation_cache="]
    with mock.patch("mmer_jax.bench.prediction.REPEATS", 2):
        assert main([*flags, "--benchmark"]) == 0
    shown = capsys.readouterr().out
    assert "ensemble of 1 on" in shown and "256" in shown and "utterances/s" in shown


# ---- what is refused ----


def complaint(capsys, *flags):
    """The one line that a faulty command prints."""
    try:
        status = main(["--compilation_cache=", *map(str, flags)])
    except SystemExit as stopped:
        status = stopped.code
    error = capsys.readouterr().err
    assert status == 2 and error.startswith("error: ") and error.count("\n") == 1, error
    return error


def test_faulty_commands(root, run, tmp_path, capsys):
    there, out = f"--workdir={run[0]}", f"--out={tmp_path / 'p.csv'}"

    def said(*flags):
        return complaint(capsys, *flags)

    assert "the following arguments are required: --workdir" in said(f"--from={root}", out)
    assert "--from and --out are needed (or --benchmark)" in said(there, out)
    assert "invalid numbers value: 'a'" in said(there, out, f"--from={root}", "--folds=a")
    assert "has no fold 1; it has: 0, 2" in said(there, out, f"--from={root}", "--folds=0,1")
    assert "has no seed 7; it has: 0, 1" in said(there, out, f"--from={root}", "--seeds=7")
    assert "directory /nowhere does not exist; set --from" in said(there, out, "--from=/nowhere")
    assert "batch_size is 0" in said(there, out, f"--from={root}", "--batch_size=0")
    (tmp_path / "file").write_text("")
    refused = said(there, f"--from={root}", f"--out={tmp_path / 'file' / 'p.csv'}")
    assert "cannot be written" in refused and "choose another --out" in refused
    empty = to_predict(root, tmp_path / "none", keep=())
    np.savez(empty / "video.npz", features=np.zeros((70, 2)))
    message = said(there, out, f"--from={empty}")
    assert "none of text.npz, audio.npz, face.npz; it has: video.npz" in message


def test_features_of_other_shapes(root, run, tmp_path, capsys):
    place = to_predict(root, tmp_path / "f", keep=())
    flags = (f"--workdir={run[0]}", f"--out={tmp_path / 'p.csv'}", f"--from={place}")
    np.savez(place / "audio.npz", features=np.zeros((70, 4)))
    message = complaint(capsys, *flags)
    assert f"{place}/audio.npz: 4 numbers an utterance, expected 3 as in training" in message
    np.savez(place / "audio.npz", features=np.zeros((70, 3)), lengths=np.ones(70, int))
    message = complaint(capsys, *flags)
    assert "audio.npz: expected one vector for each utterance, as in training" in message


def test_workdirs_that_hold_no_finished_run(run, tmp_path):
    def said(name, text=None):
        """Of a copy of the workdir in which a file is gone, or has another text."""
        shutil.rmtree(tmp_path / "w", ignore_errors=True)
        shutil.copytree(run[0], tmp_path / "w")
        (tmp_path / "w" / name).unlink()
        if text is not None:
            (tmp_path / "w" / name).write_text(text)
        with pytest.raises(UserError) as caught:
            mmer_jax.load(tmp_path / "w")
        return str(caught.value)

    again = "run the same training command again"
    assert "config.json does not exist; give the --workdir of a finished run" in said("config.json")
    assert "config.json is damaged (no JSON object)" in said("config.json", "[]")
    assert "is not a config.json of ours" in said("config.json", "{}")
    assert f"the run in {tmp_path / 'w'} is not finished; {again}" in said("evaluated.json")
    assert "evaluated.json is damaged (" in said("evaluated.json", '{"trials": ["x"]}')
    assert "evaluated.json is damaged (" in said("evaluated.json", '{"trials": []}')
    message = said("normalization.npz")
    assert (
        "normalization.npz does not exist" in message and f"{again}: it trains nothing" in message
    )
    assert "normalization.npz is damaged" in said("normalization.npz", "")
    group = next((run[0] / "checkpoints" / "final").glob("*.json"))
    message = said(f"checkpoints/final/{group.name}", "[]")
    assert "has no parameters of: {} fold 0 seed 0, " in message and again in message


def test_the_same_command_writes_a_lost_normalization_again(root, tmp_path):
    def config():
        config = shrunk(utt_fusion.get_config(), trials__folds=[0])
        with config.unlocked():
            config.data.label = "emotion"
        return config

    scored(config(), root, tmp_path)
    path = tmp_path / "normalization.npz"
    before = path.read_bytes()
    with np.load(path) as stored:
        assert stored["mean:text"].shape == (3, 4) and stored["label_std"].tolist() == [1, 1, 1]
    path.unlink()
    scored(config(), root, tmp_path)
    assert path.read_bytes() == before
    assert json.loads((tmp_path / "evaluated.json").read_text())["trials"] == ["{} fold 0 seed 0"]

"""Whole runs of the shipped configs, made small: results, resuming, refusals."""

import csv
import json
import shutil
import signal

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import shrunk, train, write_features

from configs import demo, ifmmin, utt_fusion
from mmer_jax import metrics, records
from mmer_jax.checkpoint import GroupCheckpoints
from mmer_jax.errors import UserError
from mmer_jax.interrupt import Interrupted
from mmer_jax.sweep import load_sweep


def on_features(config, root, **overrides):
    defaults = {
        "data__root": str(root),
        "data__source": "directory",
        "data__modalities": ("text", "audio", "face"),
        "data__label": "emotion",
        "data__splits": "kfold",
        "data__kfold": 3,
    }
    return shrunk(config, **{**defaults, **overrides})


def read_csv(workdir):
    with (workdir / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# ---- what a run leaves ----


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("demo")
    config = shrunk(demo.get_config(), trials__seeds=2)
    results, text = train(config, workdir, report=True)
    return workdir, results, text


def test_results_csv_has_the_documented_form(demo_run):
    workdir, _, _ = demo_run
    rows = read_csv(workdir)
    assert list(rows[0]) == (
        "method,dataset,fold,seed,split,protocol,condition,metric,value,n".split(",")
    )
    conditions = {(r["protocol"], r["condition"]) for r in rows}
    assert conditions == {("full", "audio+text+visual")} | {
        ("pattern", c)
        for c in ("audio", "text", "visual", "audio+text", "audio+visual", "text+visual")
    } | {("rate", f"0.{i}") for i in range(8)}
    assert {(r["fold"], r["seed"]) for r in rows} == {
        (str(f), str(s)) for f in range(5) for s in (0, 1)
    }
    assert {r["split"] for r in rows} == {"test"}


def test_every_test_utterance_is_scored_once_per_condition(demo_run):
    rows = [r for r in read_csv(demo_run[0]) if r["seed"] == "1"]
    for protocol, condition in {(r["protocol"], r["condition"]) for r in rows}:
        mine = [r for r in rows if r["condition"] == condition]
        expected = 260 * (5 if protocol == "rate" else 1)  # draws
        assert sum(int(r["n"]) for r in mine if r["metric"] == "UA") == expected
        counts = [int(r["value"]) for r in mine if r["metric"].startswith("confusion:")]
        assert len(counts) == 5 * 16 and sum(counts) == expected


def test_scores_are_those_of_the_confusion_counts(demo_run):
    rows = [r for r in read_csv(demo_run[0]) if (r["fold"], r["seed"]) == ("2", "0")]
    by_metric = {r["metric"]: r["value"] for r in rows if r["condition"] == "audio+text"}
    classes = ("angry", "happy", "neutral", "sad")
    matrix = np.array([[int(by_metric[f"confusion:{t}>{p}"]) for p in classes] for t in classes])
    for name, value in metrics.classification_scores(matrix).items():
        assert float(by_metric[name]) == pytest.approx(value, abs=1e-6)


def test_the_run_ends_with_a_table_and_says_where_things_are(demo_run):
    workdir, _, text = demo_run
    for expected in ("missing, pooled", "missing, mean", "audio+visual", "report.md", "ETA"):
        assert expected in text
    report = (workdir / "report" / "report.md").read_text()
    assert "| missing, pooled |" in report and "5 folds × 2 seeds" in report
    assert text.count(" epoch ") == 4  # one line each without a terminal


def test_metrics_are_logged_per_trial_and_epoch(demo_run):
    lines = [json.loads(line) for line in (demo_run[0] / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 10 * 4
    assert {"task", "imagination", "invariance", "loss", "validation_score"} <= set(lines[-1])
    assert [line["best_epoch"] for line in lines if line["epoch"] == 1][:10] == [0.0] * 10


def test_the_best_epoch_is_chosen_on_validation(demo_run):
    lines = [json.loads(line) for line in (demo_run[0] / "metrics.jsonl").read_text().splitlines()]
    for fold in range(5):
        mine = [x for x in lines if (x["stage"], x["fold"], x["seed"]) == ("ifmmin", fold, 0)]
        scores = [x["validation_score"] for x in mine]
        assert mine[-1]["best_score"] == max(scores)
        assert mine[-1]["best_epoch"] == int(np.argmax(scores))


# ---- other data ----


@pytest.mark.parametrize(
    "overrides",
    [
        {"data__modalities": ("audio", "face"), "train__patterns": "rate", "train__rate": 0.4},
        pytest.param(
            {"data__label": "score", "data__source": "records", "data__placement": "stream"},
            marks=pytest.mark.slow,
        ),
        {
            "data__modalities": ("text", "audio"),
            "data__splits": "split",
            "quirks__pad_masking": False,
            "train__patterns": "sample",
        },
        {
            "model__invariant_input": False,
            "stages__ifmmin__invariance_weight": 0.0,
            "stages__ifmmin__init_from_teacher": False,
            "model__encoders": ("lstm", "fc", "fc"),
            "data__splits": "session",
        },
    ],
    ids=lambda o: ",".join(f"{k.split('__')[-1]}={v}" for k, v in o.items()),
)
def test_the_same_flags_work_on_other_data_and_ablations(tmp_path, overrides):
    root = write_features(tmp_path / "features")
    overrides = {"data__records_dir": str(tmp_path / "records"), **overrides}
    results, _ = train(on_features(ifmmin.get_config(), root, **overrides), tmp_path / "w")
    n_modalities = len(overrides.get("data__modalities", "abc"))
    assert len({r.condition for r in results if r.protocol != "rate"}) == 2**n_modalities - 1
    assert all(np.isfinite(float(r.value)) for r in results)
    if overrides.get("data__label") == "score":
        scores = {r.metric for r in results if r.protocol != "rate"}
        assert scores == {"MAE", "pearson", "binary_accuracy", "binary_F1", "imagination_R2"}


def test_sequences_only_and_any_names(tmp_path):
    root = write_features(tmp_path / "features", vector=False)
    x = np.random.default_rng(0).normal(size=(120, 2)).astype(np.float32)
    np.savez(root / "Brain waves.npz", features=x, lengths=np.full(40, 3))
    config = on_features(utt_fusion.get_config(), root, data__modalities=("text", "Brain waves"))
    results, _ = train(config, tmp_path / "w")
    patterns = {r.condition for r in results if r.protocol != "rate"}
    assert patterns == {"text", "Brain waves", "text+Brain waves"}


def test_a_modality_that_is_nonfinite_counts_as_missing(tmp_path):
    """Scores of utterances whose audio is NaN do not depend on whether audio is available."""
    root = write_features(tmp_path / "features")
    with np.load(root / "audio.npz") as archive:
        features = archive["features"].copy()
    features[:] = np.nan
    features[0] = 1.0
    np.savez(root / "audio.npz", features=features)
    config = on_features(ifmmin.get_config(), root, data__nonfinite="missing", trials__folds=[0])
    results, _ = train(config, tmp_path / "w")

    def confusion(condition):
        return [r.value for r in results if r.condition == condition and ":" in r.metric]

    assert confusion("text+audio+face") == confusion("text+face")
    assert confusion("text+audio") == confusion("text")


# ---- interruption ----


def stop_after(monkeypatch, epochs):
    """As if SIGTERM came during the given epoch."""
    seen = []
    original = records.Reporter.epoch

    def epoch(self, *args):
        original(self, *args)
        seen.append(args)
        if len(seen) == epochs:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(records.Reporter, "epoch", epoch)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_interrupted_and_resumed_is_the_same_to_the_byte(demo_run, tmp_path, monkeypatch, epochs):
    config = shrunk(demo.get_config(), trials__seeds=2)
    with monkeypatch.context() as patched:
        stop_after(patched, epochs)
        with pytest.raises(Interrupted, match="SIGTERM"):
            train(config, tmp_path)
    assert not (tmp_path / "results.csv").exists()
    _, text = train(shrunk(demo.get_config(), trials__seeds=2), tmp_path)
    assert f"resuming after {epochs} epochs" in text
    expected = (demo_run[0] / "results.csv").read_bytes()
    assert (tmp_path / "results.csv").read_bytes() == expected
    done = [
        json.loads(line)["epochs_done"]
        for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    assert done == [e for e in range(1, 5) for _ in range(10)]


def test_a_finished_run_is_not_trained_again(demo_run):
    workdir, _, _ = demo_run
    before = (workdir / "results.csv").read_bytes()
    _, text = train(shrunk(demo.get_config(), trials__seeds=2), workdir)
    assert " epoch " not in text and "missing, pooled" in text
    assert (workdir / "results.csv").read_bytes() == before


def test_another_protocol_scores_the_trained_run_anew(demo_run, tmp_path):
    """Neither trained again nor mixed with what stood there."""
    workdir = tmp_path / "copy"
    shutil.copytree(demo_run[0], workdir)
    config = shrunk(
        demo.get_config(),
        trials__seeds=2,
        eval__protocols=("full", "dialogue_rate", "imbalanced"),
        eval__rates=(0.0, 0.5),
        eval__imbalanced=((0.1, 0.3, 0.5),),
        eval__mask_draws=2,
    )
    results, text = train(config, workdir)
    assert " epoch " not in text
    conditions = {(r["protocol"], r["condition"]) for r in read_csv(workdir)}
    assert conditions == {
        ("full", "audio+text+visual"),
        ("dialogue_rate", "0.0"),
        ("dialogue_rate", "0.5"),
        ("imbalanced", "audio=0.1+text=0.3+visual=0.5"),
    }
    assert {p.name for p in (workdir / "masks").iterdir()} >= {"dialogue_rate.npz"}
    effective = [float(r.value) for r in results if r.metric == "effective_rate"]
    assert min(effective) == 0 and 0.2 < max(effective) < 0.6


def test_rate_zero_scores_as_full_modality(demo_run):
    rows = [r for r in read_csv(demo_run[0]) if r["metric"] in ("WA", "UA")]
    full = {
        (r["fold"], r["seed"], r["metric"]): r["value"] for r in rows if r["protocol"] == "full"
    }
    zero = {
        (r["fold"], r["seed"], r["metric"]): r["value"]
        for r in rows
        if (r["protocol"], r["condition"]) == ("rate", "0.0")
    }
    assert zero == full


def test_effective_rates_are_those_of_the_saved_masks(demo_run):
    with np.load(demo_run[0] / "masks" / "rate.npz") as saved:
        available, conditions = saved["available"], list(saved["conditions"])
    rates = [1 - available[i].mean() for i in range(len(conditions))]
    np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 2 / 3], atol=0.04)
    rows = [
        r for r in read_csv(demo_run[0]) if r["metric"] == "effective_rate" and r["seed"] == "0"
    ]
    for name, rate in zip(conditions, rates, strict=True):
        mine = [float(r["value"]) for r in rows if r["condition"] == name]
        assert len(mine) == 5 and np.mean(mine) == pytest.approx(rate, abs=0.02)


def test_seeds_can_be_added_to_a_finished_run(tmp_path):
    def config(seeds):
        return shrunk(
            utt_fusion.get_config(),
            data__source="synthetic",
            data__label="emotion",
            data__splits="session",
            trials__seeds=seeds,
        )

    train(config(1), tmp_path)
    before = read_csv(tmp_path)
    _, text = train(config(2), tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["seed"] for line in lines] == [0] * 10 + [1] * 10
    after = read_csv(tmp_path)
    assert [r for r in after if r["seed"] == "0"] == before
    assert {r["seed"] for r in after} == {"0", "1"} and text.count(" epoch ") == 2


def test_a_diverging_point_does_not_stop_a_sweep(tmp_path):
    config = shrunk(
        utt_fusion.get_config(),
        data__source="synthetic",
        data__label="valence",
        data__splits="session",
        trials__folds=[0, 1],
    )
    path = tmp_path / "sweep.py"
    key = "stages.utt_fusion.learning_rate"
    path.write_text(f"def sweep():\n    yield {{{key!r}: 1e30}}\n    yield {{{key!r}: 1e-3}}\n")
    points = load_sweep(path, config)
    results, text = train(config, tmp_path / "w", points=points)
    assert "training diverged" in text and "chosen by validation: point 1" in text
    assert {r.fold for r in results} == {0, 1}
    rows = list(csv.DictReader((tmp_path / "w" / "sweep.csv").read_text().splitlines()))
    assert [(r["point"], r["chosen"]) for r in rows] == [("0", "0")] * 2 + [("1", "1")] * 2


def test_a_checkpoint_goes_on_with_other_padding(tmp_path):
    """Stored are the real trials; a mesh that fills up to more gets copies of the last."""
    checkpoints = GroupCheckpoints(tmp_path, "abc", ["x", "y", "z"])
    checkpoints.save(3, {"a": jnp.arange(8.0).reshape(4, 2), "b": (jnp.arange(4),)})
    assert checkpoints.standing() == (3, {}, ())
    like = {"a": jnp.zeros((5, 2)), "b": (jnp.zeros(5, jnp.int32),)}
    loaded = checkpoints.load(3, like)
    assert loaded["a"].tolist() == [[0, 1], [2, 3], [4, 5], [4, 5], [4, 5]]
    assert loaded["b"][0].tolist() == [0, 1, 2, 2, 2]


# ---- refusals ----


def test_a_workdir_of_another_config_is_refused_and_kept(demo_run):
    workdir, _, _ = demo_run
    before = (workdir / "results.csv").read_bytes()
    config = shrunk(demo.get_config(), trials__seeds=2, model__embedding=16)
    with pytest.raises(UserError, match="model.embedding there 8, here 16"):
        train(config, workdir)
    assert (workdir / "results.csv").read_bytes() == before


def test_trained_parameters_are_never_taken_for_another_configs(demo_run, tmp_path):
    """Also where the log and the results have been deleted."""
    workdir = tmp_path / "copy"
    shutil.copytree(demo_run[0], workdir)
    for name in ("metrics.jsonl", "results.csv"):
        (workdir / name).unlink()
    with pytest.raises(UserError, match="model.embedding there 8, here 16"):
        train(shrunk(demo.get_config(), trials__seeds=2, model__embedding=16), workdir)


def test_an_interrupted_evaluation_leaves_no_stamp(demo_run, tmp_path, monkeypatch):
    """results.csv is never taken for what another evaluation asked for."""
    workdir = tmp_path / "copy"
    shutil.copytree(demo_run[0], workdir)
    (workdir / "sweep.csv").write_text("of an earlier sweep")

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("mmer_jax.scoring.evaluate_trials", stop)
    with pytest.raises(KeyboardInterrupt):
        train(shrunk(demo.get_config(), trials__seeds=2, eval__mask_seed=1), workdir)
    assert not (workdir / "evaluated.json").exists() and not (workdir / "sweep.csv").exists()


def test_a_workdir_where_nothing_was_trained_yet_can_change(tmp_path):
    for label in ("wrong", "emotion"):
        config = shrunk(utt_fusion.get_config(), data__source="synthetic", data__label=label)
        with config.unlocked():
            config.data.splits = "session"
        if label == "wrong":
            with pytest.raises(UserError, match="unknown label column 'wrong'"):
                train(config, tmp_path)
        else:
            assert train(config, tmp_path)[0]


def test_changed_features_are_noticed(tmp_path):
    root = write_features(tmp_path / "features")
    config = {"trials__folds": [0]}
    train(on_features(utt_fusion.get_config(), root, **config), tmp_path / "w")
    write_features(root, seed=1)
    with pytest.raises(UserError, match="fingerprint there"):
        train(on_features(utt_fusion.get_config(), root, **config), tmp_path / "w")


def test_divergence_names_trial_stage_step_and_term(tmp_path):
    config = shrunk(
        utt_fusion.get_config(),
        data__source="synthetic",
        data__label="valence",
        data__splits="session",
        stages__utt_fusion__learning_rate=1e30,
    )
    where = "step [23] .epoch 1. of stage utt_fusion, trial .fold 0, seed 0."
    with pytest.raises(UserError, match=f"diverged: task is not finite at {where}"):
        train(config, tmp_path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"method": "mminn"}, "unknown method 'mminn'; choose one of: utt_fusion"),
        ({"method": "utt_fusion"}, "needs 'stages.utt_fusion'.*configs/utt_fusion.py"),
        ({"data__source": "files"}, "data.source is 'files'; choose one of: records"),
        ({"eval__rates": (0.25,)}, "eval.rates is .0.25.; expected different rates of one dec"),
        ({"eval__protocols": ("nose",)}, "eval.protocols names 'nose'"),
        ({"train__rate": 1.5}, "train.rate is 1.5"),
        ({"trials__seeds": 0}, "trials.seeds is 0; it must be at least 1"),
        ({"model__classifier": ()}, "model.classifier is ..; expected layer sizes"),
        ({"stages__ifmmin__dropout": 1.0}, "stages.ifmmin.dropout is 1.0"),
        ({"stages__ifmmin__batch_size": 0}, "stages.ifmmin.batch_size is 0"),
        ({"mesh__devices": 99}, "mesh.devices=99, but there are 8 devices"),
        ({"mesh__data": 3}, "mesh.data=3 must divide"),
        ({"model__encoders": ("lstm",)}, "model.encoders .* has 1 entries"),
        ({"model__encoders": ("lstm", "cnn", "fc")}, "unknown encoder 'cnn'"),
        ({"model__encoders": ("fc", "lstm", "fc")}, "encoder 'fc' does not fit modality 'audio'"),
        ({"data__modalities": ("a", "b")}, "has 3 modalities; data.modalities names"),
    ],
)
def test_faulty_values_are_explained(tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        train(shrunk(demo.get_config(), **overrides), tmp_path)
    assert not (tmp_path / "results.csv").exists()

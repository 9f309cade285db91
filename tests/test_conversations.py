"""Emotion and intent in conversations as a user meets them: runs, predictions, mistakes."""

import csv
import re

import numpy as np
import pytest
from helpers import shrunk, train

from configs import ei2
from mmer_jax import load, predict
from mmer_jax.data import feature_dir
from mmer_jax.data.synthetic import make_synthetic
from mmer_jax.errors import UserError
from mmer_jax.metrics import JOINT

LABELS = ("emotion", "intent")
EVERY = np.arange(90)


@pytest.fixture(scope="module")
def corpus():
    return make_synthetic(n_utterances=90, label=LABELS)


def write(folder, corpus, columns):
    """The corpus's features, whose files name their rows, beside other columns."""
    feature_dir.write_directory(folder, columns, {})
    for name, raw in corpus.source.raw.items():
        lengths = {} if raw.lengths is None else {"lengths": raw.lengths}
        np.savez(folder / f"{name}.npz", features=raw.features, utt_id=corpus.ids, **lengths)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory, corpus):
    return write(tmp_path_factory.mktemp("data") / "features", corpus, corpus.columns)


def config_of(root, **overrides):
    config = shrunk(
        ei2.get_config(),
        data__source="directory",
        data__root=str(root),
        data__splits="session",
        trials__folds=[0],
        eval__rates=(0.0, 0.5),
        eval__mask_draws=2,
    )
    with config.unlocked():
        config.update_from_flattened_dict(overrides)
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory, root):
    workdir = tmp_path_factory.mktemp("run")
    return workdir, train(config_of(root), workdir)[0]


@pytest.fixture(scope="module")
def model(run):
    return load(run[0])


def given(corpus, rows, present=None):
    """(features, who speaks where) of some rows as `predict` takes them."""
    features, lengths = corpus.read(rows), corpus.lengths
    found = {}
    for i, m in enumerate(corpus.spec.modalities):
        x = list(features[m.name])
        if m.is_sequence:
            x = [values[: lengths[m.name][row]] for row, values in zip(rows, x, strict=True)]
        if present is not None:
            x = [values if there else None for values, there in zip(x, present[:, i], strict=True)]
        found[m.name] = x
    where = {f"{name}s": corpus.columns[name][rows] for name in ("dialogue", "turn", "speaker")}
    return found, where


def score(results, metric, protocol="full", condition="audio+text+visual"):
    (found,) = (
        r for r in results if (r.metric, r.protocol, r.condition) == (metric, protocol, condition)
    )
    return float(found.value)


def accuracy(corpus, found, task, rows):
    """Of predictions of all rows, by those of `rows` that have the label."""
    i = LABELS.index(task)
    rows = rows[corpus.labels[rows, i] >= 0]
    return (found.of(task).outputs[rows].argmax(-1) == corpus.labels[rows, i]).mean()


@pytest.fixture(scope="module")
def tested(corpus):
    """The rows that fold 0 tests."""
    session = corpus.columns["session"]
    return np.flatnonzero(session == np.unique(session)[0])


# ---- runs and their predictions ----


@pytest.mark.slow
def test_predictions_of_dialogues_are_those_of_the_run(run, model, corpus, tested):
    """Scores of results.csv from predictions of the features themselves."""
    features, where = given(corpus, EVERY)
    found = model.predict(features, **where, batch_size=16)
    for task in LABELS:
        expected = accuracy(corpus, found, task, tested)
        assert score(run[1], f"{task}/WA") == pytest.approx(expected, abs=1e-6)
    alone = model.predict(features)
    assert abs(alone.outputs - found.outputs).max() > 1e-6
    with pytest.raises(UserError, match="trained on at most 2"):
        model.predict(features, **where | {"speakers": EVERY.astype(str)})
    with pytest.raises(UserError, match="give speakers as well"):
        model.predict(features, **where | {"speakers": None})


def test_rates_of_the_run_are_scored_from_patterns(run):
    for metric in (JOINT, "emotion/UA"):
        assert score(run[1], metric) == score(run[1], metric, "rate", "0.0")


@pytest.mark.slow
def test_with_history_missing_a_rate_takes_from_every_turn(root, corpus, tested, tmp_path):
    """The masks of the workdir, laid over the features of all turns, give results.csv."""
    config = config_of(root, **{"model.history_missing": True})
    results, _ = train(config, tmp_path / "run")
    model = load(tmp_path / "run")
    with np.load(tmp_path / "run" / "masks" / "rate.npz") as file:
        (masks,) = file["available"][file["conditions"] == "0.5"]
    hits = {task: [] for task in LABELS}
    for mask in masks:
        features, where = given(corpus, EVERY, mask)
        found = model.predict(features, **where)
        for task, values in hits.items():
            values.append(accuracy(corpus, found, task, tested))
    for task, values in hits.items():
        expected = pytest.approx(np.mean(values), abs=1e-6)
        assert score(results, f"{task}/WA", "rate", "0.5") == expected


def test_later_turns_batches_and_order_do_not_change_a_prediction(model, corpus):
    features, where = given(corpus, EVERY)
    whole = model.predict(features, **where)
    turn = corpus.columns["turn"].astype(int)
    for until in (1, 3):
        rows = np.flatnonzero(turn < until)[::-1]
        features, where = given(corpus, rows)
        found = model.predict(features, **where, batch_size=5 * until)
        np.testing.assert_allclose(found.outputs, whole.outputs[rows], atol=2e-6)


def test_the_command_reads_dialogues_in_any_order_of_lines(run, model, corpus, tmp_path, capsys):
    rows = np.random.default_rng(0).permutation(EVERY)
    columns = {name: x[rows] for name, x in corpus.columns.items() if name not in LABELS}
    folder, out = write(tmp_path / "new", corpus, columns), tmp_path / "predictions.csv"
    assert predict.main([f"--workdir={run[0]}", f"--from={folder}", f"--out={out}"]) == 0
    printed, count = capsys.readouterr().out, len(set(corpus.columns["dialogue"]))
    assert f"{count} dialogue(s), the longest of" in printed
    features, where = given(corpus, rows)
    expected = model.predict(features, **where)
    with out.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["utt_id"] for line in lines] == list(corpus.ids[rows])
    for task in expected.tasks:
        mine = expected.of(task.name)
        assert [line[f"{task.name}/prediction"] for line in lines] == mine.labels
        for c, name in enumerate(task.classes):
            values = [float(line[f"{task.name}/p:{name}"]) for line in lines]
            np.testing.assert_allclose(values, mine.outputs[:, c], atol=2e-6)


@pytest.mark.slow
def test_imagination_is_scored_by_pattern_and_predicts(root, corpus, tested, tmp_path):
    config = config_of(root, **{"model.imagination": True, "stages.ei2.focus": 2.0})
    results, _ = train(config, tmp_path / "run")
    shares = {r.condition: float(r.value) for r in results if r.metric == "imagination_R2"}
    assert len(shares) == 6 and max(shares.values()) <= 1
    features, where = given(corpus, EVERY)
    found = load(tmp_path / "run").predict(features, **where)
    expected = accuracy(corpus, found, "intent", tested)
    assert score(results, "intent/WA") == pytest.approx(expected, abs=1e-6)


# ---- mistakes ----


def changed(corpus, change):
    """Columns of which one has other values, in rows of the longest dialogue; or without it."""
    names, counts = np.unique(corpus.columns["dialogue"], return_counts=True)
    rows = np.flatnonzero(corpus.columns["dialogue"] == names[counts.argmax()])
    columns = {name: x.astype(object) for name, x in corpus.columns.items()}
    for name, values in change.items():
        if values is None:
            del columns[name]
        elif isinstance(values, str):
            columns[name][:] = values
        else:
            columns[name][rows[: len(values)]] = values
    return {name: x.astype(str) for name, x in columns.items()}


MISTAKES = [
    ({"turn": ["0", "0"]}, r"dialogue 'ses\d_dia\d' has more than one turn 0: utt\d+, utt\d+; num"),
    ({"turn": ["first"]}, r"utterance utt\d+: turn 'first' is no number"),
    ({"speaker": [""]}, r"1 utterance\(s\) have no speaker: utt\d+; name who speaks"),
]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *MISTAKES,
        ({"dialogue": [""]}, r"1 utterance\(s\) have no dialogue: utt\d+"),
        ({"dialogue": None}, "needs the columns 'dialogue' and 'turn' in utterances.csv"),
        ({"speaker": None}, "needs the column 'speaker' in utterances.csv, which has: utt_id"),
        ({"intent": "ask"}, "label column 'intent' has the single class 'ask'; at least two"),
        ({"intent": ""}, "label column 'intent' is empty for every utterance"),
        ({"intent": None}, "unknown label column 'intent'; utterances.csv has: utt_id"),
        ({"utt_id": ["x", "x"]}, r"utterances.csv: 1 duplicate utt_id\(s\): x"),
        ({"utt_id": ["x"]}, r"1 utt_id\(s\) that utterances.csv does not list: utt\d+"),
    ],
)
def test_mistakes_in_the_features_are_explained_before_training(corpus, tmp_path, change, message):
    folder = write(tmp_path / "features", corpus, changed(corpus, change))
    with pytest.raises(UserError, match=message):
        train(config_of(folder), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *MISTAKES,
        (
            {"speaker": ["a", "b", "c"]},
            r"of utterance utt\d+ has [345] speakers; this model was trained on at most 2\.",
        ),
        ({"speaker": None}, "has dialogues and no column 'speaker', which this model reads"),
    ],
)
def test_mistakes_in_prediction(run, corpus, tmp_path, capsys, change, message):
    folder = write(tmp_path / "features", corpus, changed(corpus, change))
    out = tmp_path / "p.csv"
    assert predict.main([f"--workdir={run[0]}", f"--from={folder}", f"--out={out}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and not out.exists()
    assert re.search(message, error)


@pytest.mark.parametrize("select", ["valence", "emotion4"])
def test_only_a_task_of_the_model_can_choose_epochs(root, tmp_path, select):
    config = config_of(root, **{"train.select": select})
    with pytest.raises(
        UserError, match=f"'{select}'; expected one of data.labels, emotion, intent"
    ):
        train(config, tmp_path)

"""Several label columns at once: corpus, folds, losses, selection, results, report, prediction."""

import csv
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import shrunk, train
from rich.console import Console

from configs import ifmmin, utt_fusion
from mmer_jax import load
from mmer_jax.data.corpus import CorpusSpec, Task, parse_tasks
from mmer_jax.data.splits import make_folds
from mmer_jax.data.synthetic import make_synthetic
from mmer_jax.errors import UserError
from mmer_jax.losses import task_terms
from mmer_jax.methods import make_stages
from mmer_jax.metrics import JOINT, classification_scores, joint_score
from mmer_jax.predict import write_predictions
from mmer_jax.report.runs import by_task, load_run
from mmer_jax.report.scores import matrix
from mmer_jax.report.terminal import terminal_table
from mmer_jax.report.units import curve_metrics
from mmer_jax.workdir import read_run

LABELS = ("emotion", "intent")


@pytest.fixture(scope="module")
def both():
    return make_synthetic(
        n_utterances=260, sequence_dims=((7, 6), (5, 8)), vector_dims=(6,), label=LABELS
    )


# ---- labels and folds ----


def test_each_column_has_its_classes_and_its_missing_labels(both):
    emotion, intent = both.spec.tasks
    assert emotion.name == "emotion" and intent.classes == ("agree", "ask", "comfort", "inform")
    assert both.labels.shape == (260, 2) and both.spec.n_outputs == 8
    np.testing.assert_array_equal(both.labels[:, 1] < 0, np.arange(260) % 8 == 7)
    alone = make_synthetic(
        n_utterances=260, sequence_dims=((7, 6), (5, 8)), vector_dims=(6,), label="intent"
    )
    np.testing.assert_array_equal(alone.labels[:, 0], both.labels[:, 1])


def test_an_utterance_with_any_label_is_in_a_fold(both):
    used = np.concatenate([fold.test for fold in make_folds(both, "session")])
    np.testing.assert_array_equal(np.sort(used), np.arange(260))


COLUMNS = {
    "utt_id": np.array(["u0", "u1", "u2", "u3"]),
    "emotion": np.array(["sad", "glad", "", "sad"]),
    "intent": np.array(["ask", "ask", "ask", ""]),
    "score": np.array(["0.5", "1.5", "2.5", ""]),
    "mood": np.array(["up", "down", "up", "down"]),
}


@pytest.mark.parametrize(
    ("label", "classes", "message"),
    [
        (("emotion", "act"), (), "unknown label column 'act'; utterances.csv has: utt_id, emotion"),
        (("emotion", "intent"), (), "column 'intent' has the single class 'ask'"),
        (("emotion", "score"), (), "column 'score' is real-valued; of several label columns"),
        (("mood", "mood"), (), "expected different columns"),
        ((), (), "expected different columns"),
        (("emotion", "mood"), ("sad", "glad"), "for 2 label columns expected a tuple of class"),
        (("emotion", "mood"), (("sad", "glad"),), "for 2 label columns expected a tuple of class"),
    ],
)
def test_faulty_label_columns_are_explained(label, classes, message):
    with pytest.raises(UserError, match=message):
        parse_tasks(COLUMNS, label, classes=classes)


def test_the_order_of_classes_can_be_given_for_each_column():
    order = (("sad", "glad"), ("up", "down"))
    labels, tasks = parse_tasks(COLUMNS, ("emotion", "mood"), classes=order)
    assert tuple(task.classes for task in tasks) == order
    assert labels.tolist() == [[0, 0], [1, 1], [-1, 0], [0, 1]]


def test_a_class_absent_from_training_is_named_with_its_task(both):
    labels = both.labels.copy()
    labels[(labels[:, 1] == 2) & (both.columns["session"] != "1"), 1] = 0
    changed = make_synthetic(n_utterances=260, label=LABELS)
    object.__setattr__(changed, "labels", labels)
    with pytest.raises(UserError, match="no training utterance of class comfort by 'intent'"):
        make_folds(changed, "session")


# ---- losses ----


def test_an_utterance_without_one_label_still_trains_the_other():
    spec = CorpusSpec((), (Task("a", ("x", "y")), Task("b", ("u", "v", "w"))))
    outputs = jax.random.normal(jax.random.key(0), (2, 3, 5))
    labels, weights = jnp.array([[0, 2], [1, -1], [-1, 1]]), jnp.ones((2, 3))

    def total(outputs):
        terms = task_terms(spec, outputs, labels, weights)
        return terms["task"], terms

    (loss, terms), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(outputs)
    np.testing.assert_allclose(loss, terms["task/a"] + terms["task/b"], rtol=1e-6)
    there = (abs(gradient[..., :2]).max((0, 2)) > 0, abs(gradient[..., 2:]).max((0, 2)) > 0)
    assert there[0].tolist() == [True, True, False] and there[1].tolist() == [True, False, True]
    # A task's loss is the mean over the utterances that have its label.
    alone = CorpusSpec((), (spec.tasks[0],))
    first = jax.jit(lambda x: task_terms(alone, x, labels[:2, :1], weights[:, :2]))(
        outputs[:, :2, :2]
    )
    np.testing.assert_allclose(terms["task/a"], first["task"], rtol=1e-6)
    assert set(first) == {"task"}


def test_a_focus_lowers_the_loss_of_what_is_known_well():
    spec = CorpusSpec((), (Task("a", ("x", "y")),))
    outputs = jnp.array([[4.0, 0.0], [0.0, 4.0], [200.0, 0.0]])[:, None, None]
    p = jax.nn.softmax(outputs)[:, 0, 0, 0]
    for focus in (0.0, 0.5, 2.5):

        def loss(x, focus=focus):
            terms = task_terms(spec, x, jnp.array([[0]]), jnp.ones((1, 1)), focus)
            return terms["task"]

        found, gradient = jax.jit(jax.vmap(jax.value_and_grad(loss)))(outputs)
        np.testing.assert_allclose(found, -((1 - p) ** focus) * jnp.log(p), rtol=1e-4, atol=1e-6)
        assert np.isfinite(gradient).all()


# ---- a run ----


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("two")
    config = shrunk(
        utt_fusion.get_config(),
        data__source="synthetic",
        data__labels=LABELS,
        data__splits="session",
        trials__folds=[0, 1],
    )
    results, text = train(config, workdir)
    return workdir, results, text


def test_results_have_each_task_and_the_joint_score(run):
    workdir, results, _ = run
    with (workdir / "results.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if (r["fold"], r["condition"]) == ("1", "text")]
    found = {r["metric"]: r for r in rows}
    f1 = []
    for name in LABELS:
        prefix = f"{name}/confusion:"
        counts = {
            tuple(m.removeprefix(prefix).split(">")): int(r["value"])
            for m, r in found.items()
            if m.startswith(prefix)
        }
        confusion = matrix(counts)
        scores = classification_scores(confusion)
        assert int(found[f"{name}/UA"]["n"]) == confusion.sum()
        for metric, value in scores.items():
            assert float(found[f"{name}/{metric}"]["value"]) == pytest.approx(value, abs=1e-6)
        f1.append(scores["weighted_F1"])
    assert float(found[JOINT]["value"]) == pytest.approx(joint_score(f1), abs=1e-6)
    assert int(found["emotion/UA"]["n"]) == int(found[JOINT]["n"]) > int(found["intent/UA"]["n"])


def test_epochs_are_chosen_by_the_joint_score_and_losses_logged_by_task(run):
    workdir, _, text = run
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert line["task"] == pytest.approx(line["task/emotion"] + line["task/intent"], rel=1e-5)
    assert "val joint_wf1" in text


def test_one_task_can_choose_the_epochs(run, tmp_path):
    """By the score that chooses where it is the only one; metrics.jsonl has every task's."""
    config = shrunk(
        utt_fusion.get_config(),
        data__source="synthetic",
        data__labels=LABELS,
        data__splits="session",
        trials__folds=[0],
        train__select="intent",
    )
    _, text = train(config, tmp_path)
    assert "val intent/UA" in text and load_run(tmp_path).selected_by == "intent/UA"
    for workdir, mine in ((run[0], None), (tmp_path, "validation/intent")):
        for line in (workdir / "metrics.jsonl").read_text().splitlines():
            record = json.loads(line)
            each = {record[f"validation/{name}"] for name in LABELS}
            assert (record["validation_score"] in each) == (mine is not None)
            assert mine is None or record["validation_score"] == record[mine]


def test_the_report_shows_tasks_beside_runs_of_one_task(run):
    workdir, results, text = run
    whole = load_run(workdir)
    emotion, intent, joint = by_task(whole)
    assert (emotion.label, intent.label, joint.label) == (*LABELS, "emotion & intent")
    condition = ("full", "audio+text+visual")
    assert set(emotion.scores.values[condition]) == {"WA", "UA", "macro_F1", "weighted_F1"}
    shared = [*(f"{name}/weighted_F1" for name in LABELS), JOINT]
    assert list(joint.scores.values[condition]) == shared == curve_metrics(shared)
    assert whole.scores.values[condition] == joint.scores.values[condition]
    assert emotion.scores.effective == joint.scores.effective
    assert emotion.classes == list(read_run(workdir)[1].tasks[0].classes)
    assert not emotion.epochs and joint.epochs and joint.selected_by == JOINT
    heads = [str(column.header) for column in terminal_table(results).columns]
    assert {"emotion\nUA", "intent\nweighted_F1", JOINT} <= set(heads)
    shown = io.StringIO()
    Console(file=shown, width=120).print(terminal_table(results))
    assert "…" not in shown.getvalue()


def test_predictions_of_each_task(run, tmp_path):
    model = load(run[0])
    features = {"visual": np.random.default_rng(0).normal(size=(5, 20))}
    features["visual"][4] = np.nan
    found = model.predict(features)
    one = found.of("intent")
    assert one.outputs.shape == (5, 4) and set(one.labels[:4]) <= set(one.classes)
    np.testing.assert_allclose(found.outputs[:4].sum(axis=1), 2, rtol=1e-5)
    for ask in (lambda: found.labels, lambda: model.classes):
        with pytest.raises(UserError, match="several tasks .emotion, intent.: ask for .of"):
            ask()
    with pytest.raises(UserError, match="no task 'act'; it has: emotion, intent"):
        found.of("act")
    write_predictions(tmp_path / "p.csv", np.arange(5).astype(str), found)
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["intent/prediction"] for row in rows] == one.labels
    assert float(rows[0]["emotion/p:sad"]) == pytest.approx(found.outputs[0, 3], abs=1e-6)
    assert rows[4]["used"] == rows[4]["emotion/p:sad"] == ""


def test_other_methods_have_several_tasks_by_their_outputs_alone(both):
    """Parameters of one task have the names and shapes they had; the last layer is wider."""

    def shapes(spec):
        earlier = {}
        for stage in make_stages(shrunk(ifmmin.get_config()), spec):
            earlier[stage.name] = jax.eval_shape(stage.init, jax.random.key(0), earlier)
        return {
            jax.tree_util.keystr(k): v.shape
            for k, v in jax.tree_util.tree_leaves_with_path(earlier)
        }

    two = shapes(both.spec)
    one = shapes(CorpusSpec(both.spec.modalities, both.spec.tasks[:1]))
    differ = {name for name in one if one[name] != two[name]}
    assert one.keys() == two.keys() and all("classifier" in n and "out" in n for n in differ)
    assert len(differ) == 4

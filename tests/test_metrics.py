"""Scores against scikit-learn, and the device's score against the host's."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from mmer_jax import metrics
from mmer_jax.data.corpus import CorpusSpec, Modality, Task

PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


def spec(classes):
    return CorpusSpec((Modality("a", 1), Modality("b", 1)), (Task("label", classes),))


@given(PAIRS)
def test_classification_scores_equal_scikit_learn(pairs):
    truth, predicted = np.array(pairs).T
    scores = metrics.classification_scores(metrics.confusion_counts(truth, predicted, 4))
    occurs = np.unique(truth)
    assert scores["WA"] == pytest.approx(reference.accuracy_score(truth, predicted))
    recalls = reference.recall_score(truth, predicted, labels=occurs, average="macro")
    assert scores["UA"] == pytest.approx(recalls)
    assert scores["macro_F1"] == pytest.approx(
        reference.f1_score(truth, predicted, average="macro", zero_division=0)
    )
    assert scores["weighted_F1"] == pytest.approx(
        reference.f1_score(truth, predicted, average="weighted", zero_division=0)
    )


def test_selection_score_is_ua_pooled_over_patterns_without_padding():
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(3, 50, 4)).astype(np.float32)
    labels, weights = rng.integers(4, size=50).astype(np.int32), (rng.random(50) < 0.8)
    four = spec(("a", "b", "c", "d"))
    counts = metrics.score_counts(
        four, jnp.asarray(outputs), jnp.asarray(labels[:, None]), jnp.asarray(weights, jnp.float32)
    )
    truth = np.tile(labels[weights], 3)
    predicted = outputs[:, weights].argmax(-1).reshape(-1)
    expected = reference.recall_score(truth, predicted, average="macro")
    assert metrics.score(counts, spec=four) == pytest.approx(expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_diverged_network_has_no_selection_score(bad):
    """argmax would make it a constant answer of UA 1/C."""
    outputs = np.zeros((2, 6, 3), np.float32)
    outputs[1, 4, 1] = bad
    labels, weights = jnp.asarray([[0], [1], [2], [0], [1], [2]]), np.ones(6, np.float32)
    three = spec(("a", "b", "c"))
    counts = metrics.score_counts(three, jnp.asarray(outputs), labels, jnp.asarray(weights))
    assert np.isnan(metrics.score(counts, spec=three))
    weights[4] = 0  # a row that fills up the batch
    counts = metrics.score_counts(three, jnp.asarray(outputs), labels, jnp.asarray(weights))
    assert np.isfinite(metrics.score(counts, spec=three))


def test_regression_scores():
    labels = np.array([-1.0, 0.0, 2.0, 1.0])
    scores = metrics.regression_scores(labels, labels + np.array([0.5, 0.5, -0.5, -1.5]))
    assert scores["MAE"] == pytest.approx(0.75)
    assert scores["pearson"] == pytest.approx(
        np.corrcoef(labels, labels + [0.5, 0.5, -0.5, -1.5])[0, 1]
    )
    assert scores["binary_accuracy"] == pytest.approx(2 / 3)  # the neutral label does not count
    assert metrics.regression_scores(labels, np.ones(4))["pearson"] == 0


def test_selection_score_of_real_valued_labels_is_minus_mae():
    outputs = jnp.array([[[1.0], [2.0], [9.0]], [[1.0], [4.0], [9.0]]])
    labels, weights = jnp.array([[1.0], [1.0], [0.0]]), jnp.array([1.0, 1.0, 0.0])
    counts = metrics.score_counts(spec(()), outputs, labels, weights)
    assert metrics.score(counts, spec=spec(())) == pytest.approx(-1.0)


def test_several_tasks_are_selected_by_the_harmonic_mean_of_their_weighted_f1():
    """Each over the utterances that have its label, in validation as in results.csv."""
    rng = np.random.default_rng(0)
    two = CorpusSpec((), (Task("a", ("x", "y", "z")), Task("b", ("u", "v"))))
    outputs = rng.normal(size=(2, 40, 5)).astype(np.float32)
    labels = np.stack([rng.integers(-1, 3, size=40), rng.integers(-1, 2, size=40)], axis=1)
    counts = metrics.score_counts(
        two, jnp.asarray(outputs), jnp.asarray(labels, jnp.int32), jnp.ones(40)
    )
    expected, each = [], metrics.task_scores(counts, spec=two)
    for i, output in enumerate(two.split(outputs)):
        known = labels[:, i] >= 0
        truth, predicted = np.tile(labels[known, i], 2), output[:, known].argmax(-1).reshape(-1)
        expected.append(reference.f1_score(truth, predicted, average="weighted"))
        recall = pytest.approx(reference.recall_score(truth, predicted, average="macro"))
        name = two.tasks[i].name
        assert float(metrics.score(counts, spec=two, select=name)) == recall == float(each[name])
    harmonic = 2 / (1 / expected[0] + 1 / expected[1])
    assert float(metrics.score(counts, spec=two)) == pytest.approx(harmonic, rel=1e-5)
    assert metrics.joint_score(expected) == pytest.approx(harmonic)
    wrong = jnp.where(jnp.arange(5) < 3, outputs, jnp.array([0.0, 0.0, 0.0, 9.0, -9.0]))
    nothing = metrics.score_counts(two, wrong, jnp.ones((40, 2), jnp.int32), jnp.ones(40))
    assert float(metrics.score(nothing, spec=two)) < 1e-9 and metrics.joint_score([0.0, 1.0]) == 0

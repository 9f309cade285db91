"""Scores against scikit-learn, and the device's score against the host's."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from mmer_jax import metrics
from mmer_jax.data.corpus import CorpusSpec, Modality

PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


def spec(classes):
    return CorpusSpec((Modality("a", 1), Modality("b", 1)), classes)


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
    counts = metrics.score_counts(
        jnp.asarray(outputs), jnp.asarray(labels), jnp.asarray(weights, jnp.float32)
    )
    truth = np.tile(labels[weights], 3)
    predicted = outputs[:, weights].argmax(-1).reshape(-1)
    expected = reference.recall_score(truth, predicted, average="macro")
    assert metrics.score(counts, spec=spec(("a", "b", "c", "d"))) == pytest.approx(expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_diverged_network_has_no_selection_score(bad):
    """argmax would make it a constant answer of UA 1/C."""
    outputs = np.zeros((2, 6, 3), np.float32)
    outputs[1, 4, 1] = bad
    labels, weights = jnp.asarray([0, 1, 2, 0, 1, 2]), np.ones(6, np.float32)
    three = spec(("a", "b", "c"))
    counts = metrics.score_counts(jnp.asarray(outputs), labels, jnp.asarray(weights))
    assert np.isnan(metrics.score(counts, spec=three))
    weights[4] = 0  # a row that fills up the batch
    counts = metrics.score_counts(jnp.asarray(outputs), labels, jnp.asarray(weights))
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
    counts = metrics.score_counts(outputs, jnp.array([1.0, 1.0, 0.0]), jnp.array([1.0, 1.0, 0.0]))
    assert metrics.score(counts, spec=spec(())) == pytest.approx(-1.0)

"""Goodness of pronunciation against its formula, and intensity as its scale."""

import jax
import numpy as np
import pytest

from mmer_jax.errors import UserError
from mmer_jax.speech import intensity
from mmer_jax.speech.gop import (
    duration_weights,
    goodness,
    span_weights,
    utterance_mean,
    word_means,
)


@pytest.fixture
def case():
    """Posteriors [2, 20, 41], phones [2, 4] and their spans."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (2, 20, 41))
    posteriors = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    edges = np.sort(rng.permutation(21)[:10].reshape(2, 5), axis=1)
    return posteriors.astype(np.float32), rng.integers(1, 41, (2, 4)), edges[:, :-1], edges[:, 1:]


def reference(posteriors, phones, starts, ends):
    found = np.zeros(phones.shape)
    for b, p in np.ndindex(*phones.shape):
        frames = posteriors[b, starts[b, p] : ends[b, p]].astype(float)
        found[b, p] = frames[:, phones[b, p]].mean() - frames[:, 1:].max(axis=1).mean()
    return found


def test_goodness_is_the_formula(case):
    posteriors, phones, starts, ends = case
    found = goodness(posteriors, phones, span_weights(starts, ends, 20))
    np.testing.assert_allclose(found, reference(*case), rtol=1e-6, atol=1e-6)
    assert (np.asarray(found) <= 0).all()


def test_weights_of_durations_are_the_overlap_of_frames():
    """Three feature frames to a posterior frame."""
    found = np.asarray(duration_weights(np.array([[2, 0, 5, 1]]), 3, 3))
    expected = [[2, 0, 0], [0, 0, 0], [1, 3, 1], [0, 0, 1]]
    assert found[0].tolist() == expected


def test_phones_without_a_frame_have_goodness_0_and_finite_gradients(case):
    posteriors, phones, starts, _ = case

    def total(x):
        return goodness(x, phones, span_weights(starts, starts, 20)).sum()

    value, gradient = jax.value_and_grad(total)(posteriors)
    assert value == 0
    assert np.isfinite(gradient).all() and not np.asarray(gradient).any()


def test_gradient_raises_the_canonical_phone(case):
    posteriors, phones, starts, ends = case
    weights = span_weights(starts, ends, 20)
    gradient = np.asarray(jax.grad(lambda x: goodness(x, phones, weights).sum())(posteriors))
    frame = starts[0, 0]
    best = 1 + posteriors[0, frame, 1:].argmax()
    assert gradient[0, frame, phones[0, 0]] > 0 > gradient[0, frame, best]


def test_means_leave_silence_out():
    values, words = np.array([9.0, 1.0, 3.0, 5.0, 9.0]), np.array([-1, 0, 0, 1, -1])
    assert word_means(values, words).tolist() == [2.0, 5.0]
    assert utterance_mean(values, words) == 3.0


def test_intensity_runs_from_the_best_to_the_worst_phones():
    values = -np.arange(101.0)
    whole = intensity.fit(values, "minmax", 0.1)
    assert whole.intensity(np.array([0.0, -25.0, -100.0, -500.0])).tolist() == [0, 0.25, 1, 1]
    inner = intensity.fit(values, "quantile", 0.1)
    assert (inner.low, inner.high) == (-90.0, -10.0)


def test_scale_survives_its_file(tmp_path):
    scale = intensity.fit(np.array([-3.0, -1.0, 0.0]), "minmax", 0.0)
    scale.save(tmp_path / "scaling.json")
    assert intensity.load(tmp_path / "scaling.json") == scale


@pytest.mark.parametrize("content", ["{", "{}", '{"low": 1, "high": 0, "method": "minmax"}'])
def test_damaged_scales_are_refused(tmp_path, content):
    path = tmp_path / "scaling.json"
    path.write_text(content)
    with pytest.raises(UserError, match="scaling.json is no scale"):
        intensity.load(path)


def test_equal_goodness_has_no_scale():
    with pytest.raises(UserError, match="about the same goodness"):
        intensity.fit(np.zeros(5), "minmax", 0.0)

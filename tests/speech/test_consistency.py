"""The consistency constraint: goodness with a gradient everywhere, and when a request is met."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.speech.consistency import huber, margin, mismatch, movement_mismatch, perturbed
from mmer_jax.speech.gop import duration_weights, goodness

PHONES = jnp.array([[40, 3, 7, 3, 40, 0]])
WEIGHTS = duration_weights(jnp.array([[2, 3, 1, 4, 2, 0]]), 6, 2)


@pytest.fixture
def heard():
    return jax.nn.log_softmax(3 * jax.random.normal(jax.random.key(0), (1, 6, 41)), axis=-1)


def test_margin_without_slope_is_goodness(heard):
    expected = goodness(heard, PHONES, WEIGHTS)
    np.testing.assert_allclose(margin(heard, PHONES, WEIGHTS, slope=0.0), expected, atol=1e-5)


def test_margin_has_a_gradient_where_the_phone_is_preferred():
    heard = jax.nn.log_softmax(8.0 * jax.nn.one_hot(jnp.array([[40, 3, 3, 3, 3, 40]]), 41), axis=-1)
    at = (0, 3)  # the second 3, heard as it should be
    slope = jax.grad(lambda x: margin(x, PHONES, WEIGHTS)[at])(heard)
    flat = jax.grad(lambda x: goodness(x, PHONES, WEIGHTS)[at])(heard)
    assert float(margin(heard, PHONES, WEIGHTS)[at]) > 0
    assert float(jnp.abs(slope).max()) > 0.01
    assert float(jnp.abs(flat).max()) < 1e-6


def test_a_phone_without_frames_has_no_margin(heard):
    assert float(margin(heard, PHONES, WEIGHTS)[0, 5]) == 0.0


def test_requests_at_the_ends_are_met_by_what_lies_beyond():
    margins = jnp.array([[0.5, -9.0, -2.0, -1.0]])  # intensities -0.125, 2.25, 0.5, 0.25
    requested = jnp.array([[0.0, 1.0, 0.5, 0.75]])
    counted = jnp.ones((1, 4), bool)
    phones, whole = mismatch(margins, requested, counted, low=-4.0, high=0.0)
    np.testing.assert_allclose(phones, [[0, 0, 0, 0.5 * 0.5**2]], atol=1e-7)
    np.testing.assert_allclose(whole, [0.5 * 0.125**2], atol=1e-7)
    phones, whole = mismatch(margins, requested, counted & (requested < 0.6), low=-4.0, high=0.0)
    assert float(phones.sum()) == 0.0 and float(whole[0]) == 0.0


def movement(seconds=40, scale=1.0, seed=0):
    """A spectrogram [1, F, 5] whose bands go their ways, and that all of it counts."""
    x = scale * np.random.default_rng(seed).normal(size=(1, seconds, 5)).cumsum(axis=1)
    return jnp.asarray(x), jnp.ones((1, seconds), bool)


def test_the_mismatch_of_movement_is_how_much_less_or_more_the_bands_move():
    recorded = movement()
    assert float(movement_mismatch(*recorded, *recorded)[0]) == 0.0
    for scale in (0.5, 2.0):
        found = movement_mismatch(*movement(scale=scale), *recorded)
        np.testing.assert_allclose(found, [np.log(2)], rtol=1e-3)


def test_the_mismatch_of_movement_ignores_level_length_and_padding():
    mel, valid = movement()
    padded = jnp.pad(mel, [(0, 0), (0, 9), (0, 0)], constant_values=-3.0)
    padded_valid = jnp.pad(valid, [(0, 0), (0, 9)])
    twice = jnp.concatenate([mel, mel[:, ::-1]], axis=1)
    assert float(movement_mismatch(padded, padded_valid, mel + 5, valid)[0]) < 1e-5
    assert float(movement_mismatch(twice, jnp.ones((1, 80), bool), mel, valid)[0]) < 0.02


def test_a_frozen_spectrum_is_a_mismatch_and_its_gradient_finite():
    mel, valid = movement()
    frozen = jnp.broadcast_to(mel[:, :1], mel.shape)
    assert float(movement_mismatch(frozen, valid, mel, valid)[0]) > 2.0
    gradient = jax.grad(lambda x: movement_mismatch(x, valid, mel, valid)[0])(frozen + 1e-3 * mel)
    assert bool(jnp.isfinite(gradient).all()) and float(jnp.abs(gradient).max()) > 0


def test_huber_is_a_square_and_then_a_line():
    np.testing.assert_allclose(huber(jnp.array([0.2, -2.0])), [0.02, 0.5 * (2 - 0.25)], rtol=1e-6)
    assert float(jax.grad(huber)(0.5)) == pytest.approx(0.5)
    assert float(jax.grad(huber)(-7.0)) == pytest.approx(-0.5)


def test_perturbation_keeps_the_mean_and_depends_on_the_key():
    mel = jnp.full((400, 10, 16), -4.0)
    one, other = (perturbed(mel, jax.random.key(k)) for k in (0, 1))
    assert float(one.mean()) == pytest.approx(-4.0, abs=0.1)
    assert 0.3 < float(one.std()) < 0.9
    assert float(jnp.abs(one - other).max()) > 0.1

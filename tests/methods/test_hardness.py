"""Hardness: golden numbers, masks that equal subsets, values that stay finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.methods.hardness import (
    entropy,
    hardness,
    information,
    min_max,
    reconstruction_error,
)


def test_the_error_is_of_the_missing_modalities_each_by_its_size():
    truth = jnp.zeros((2, 5))
    guess = jnp.array([[1.0, 1.0, 3.0, 3.0, 3.0], [2.0, 0.0, 1.0, 1.0, 1.0]])
    missing = jnp.array([[True, False], [True, True]])
    found = reconstruction_error(guess, truth, missing, dims=(2, 3))
    np.testing.assert_allclose(found, [1.0, 2.0 + 1.0])
    np.testing.assert_array_equal(
        reconstruction_error(guess, truth, jnp.zeros((2, 2), bool), dims=(2, 3)), 0
    )


def test_entropy_is_in_nats():
    np.testing.assert_allclose(entropy(jnp.full((3, 8), 5.0)), np.log(8), rtol=1e-5)
    sharp = entropy(jnp.array([100.0, 0, 0, 0]))
    assert 0 <= sharp < 1e-4


def test_information_is_what_two_know_of_each_other():
    x, y = jnp.full(4, 1.0), jnp.full(4, 2.0)
    np.testing.assert_allclose(information(x, y, x), np.log(4), rtol=1e-5)


def test_scaling_is_that_of_those_that_count():
    x = jnp.array([4.0, -9.0, 2.0, 3.0, 50.0])
    counts = jnp.array([True, False, True, True, False])
    np.testing.assert_allclose(min_max(x, counts), [1.0, 0.0, 0.0, 0.5, 1.0])
    np.testing.assert_allclose(min_max(x[counts], jnp.ones(3, bool)), [1.0, 0.0, 0.5])


@pytest.mark.parametrize("case", ["alike", "none", "one"])
def test_where_nothing_differs_nothing_is_hard(case):
    x = jnp.full(5, 2.0)
    counts = jnp.zeros(5, bool).at[: {"alike": 5, "none": 0, "one": 1}[case]].set(True)
    for least in (0.0, 1e-5):
        value, gradient = jax.value_and_grad(lambda x, e=least: min_max(x, counts, least=e).sum())(
            x
        )
        assert value == 0 and np.isfinite(gradient).all()


def test_the_spread_of_errors_must_be_worth_it():
    x, counts = jnp.array([0.0, 5e-6]), jnp.ones(2, bool)
    np.testing.assert_array_equal(min_max(x, counts, least=1e-5), 0)
    np.testing.assert_allclose(min_max(x, counts), [0, 1])


def test_hardness_weighs_both_views():
    direct, indirect = jnp.array([0.0, 1.0, 0.0, 1.0]), jnp.array([0.0, 0.0, 3.0, 3.0])
    settings = {"alpha_direct": 0.6, "alpha_indirect": 0.4, "beta": 4.0}
    found = hardness(direct, indirect, jnp.ones(4, bool), **settings)
    expected = 1 / (1 + np.exp(-4 * np.array([0, 0.6, 0.4, 1.0])))
    np.testing.assert_allclose(found, expected, rtol=1e-4)

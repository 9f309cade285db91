"""Loss terms: golden numbers, masks that equal subsets, gradients that are finite everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from mmer_jax.losses import cmd, cross_entropy, task_loss, weighted_mean


@pytest.fixture
def batches():
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=(9, 4)), jnp.float32) for _ in range(2))


def test_cmd_of_shifted_batch_is_the_distance_of_the_means():
    x = jnp.array([[0.0, 1.0], [2.0, 3.0]])
    np.testing.assert_allclose(cmd(x, x + jnp.array([[3.0, 4.0]])), 5.0, rtol=1e-6)


def test_cmd_adds_the_distances_of_central_moments():
    x, y = jnp.array([[-1.0], [1.0]]), jnp.array([[-2.0], [2.0]])
    # Second moments 1 and 4, fourth moments 1 and 16; odd moments and means are 0.
    np.testing.assert_allclose(cmd(x, y), 3.0 + 15.0, rtol=1e-6)


def test_cmd_with_weights_equals_cmd_of_the_subset(batches):
    x, y = batches
    keep = jnp.array([1, 0, 1, 1, 0, 1, 1, 1, 0], jnp.float32)
    kept = np.flatnonzero(keep)
    weighted = cmd(x, y, x_weights=keep, y_weights=keep)
    np.testing.assert_allclose(weighted, cmd(x[kept], y[kept]), rtol=1e-5)
    np.testing.assert_allclose(cmd(x, y, x_weights=keep), cmd(x[kept], y), rtol=1e-5)


@pytest.mark.parametrize("case", ["equal", "constant", "one row", "no rows"])
def test_cmd_gradient_is_finite_where_norms_vanish(batches, case):
    x, y = batches
    weights = jnp.ones(9)
    if case == "equal":
        y = x
    if case == "constant":
        x = y = jnp.full((9, 4), 2.0)
    if case == "one row":
        weights = weights.at[1:].set(0)
    if case == "no rows":
        weights = jnp.zeros(9)
    gradient = jax.grad(lambda x: cmd(x, y, x_weights=weights, y_weights=weights))(x)
    assert np.isfinite(gradient).all()


def test_cmd_gradient_matches_finite_differences(batches):
    check_grads(
        lambda x: cmd(jnp.asarray(x), batches[1]), (batches[0],), order=1, modes=["rev"], rtol=2e-2
    )


def test_weighted_mean_ignores_rows_of_weight_zero():
    values, weights = jnp.array([1.0, 2.0, 1e9]), jnp.array([1.0, 1.0, 0.0])
    assert weighted_mean(values, weights) == 1.5
    assert weighted_mean(values, jnp.zeros(3)) == 0.0


def test_cross_entropy_is_in_nats_and_stable():
    logits = jnp.array([[0.0, 0.0], [1e4, -1e4]])
    loss = cross_entropy(logits=logits, labels=jnp.array([0, 0]))
    np.testing.assert_allclose(loss, [np.log(2), 0], atol=1e-6)


def test_task_loss_follows_the_label_type():
    outputs = jnp.array([[0.5], [2.0]])
    np.testing.assert_allclose(task_loss(outputs, jnp.array([1.0, jnp.nan])), [0.25, 4.0])

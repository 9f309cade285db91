"""Adam with L2, clipping per network, and the released schedule."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.optimizer import clip_per_network, decay_factor, make_optimizer


def test_each_network_is_clipped_on_its_own():
    gradients = {"a": {"x": jnp.array([3.0, 4.0])}, "b": {"x": jnp.array([0.3, 0.4])}}
    clipped, _ = clip_per_network(1.0).update(gradients, None)
    np.testing.assert_allclose(clipped["a"]["x"], [0.6, 0.8], rtol=1e-5)
    np.testing.assert_array_equal(clipped["b"]["x"], gradients["b"]["x"])


def test_weight_decay_is_added_to_the_gradient_before_adam():
    optimizer = make_optimizer(b1=0.9, weight_decay=0.1, clip=1e9)
    params = {"a": jnp.array([10.0, -10.0])}
    direction, _ = optimizer.update({"a": jnp.zeros(2)}, optimizer.init(params), params)
    # Adam's first step is the sign of the gradient, here of the decay alone.
    np.testing.assert_allclose(direction["a"], [1.0, -1.0], rtol=1e-5)


@pytest.mark.parametrize(
    ("epoch", "factor"), [(0, 1.0), (9, 1.0), (10, 10 / 11), (19, 1 / 11), (20, 0.0)]
)
def test_learning_rate_is_constant_then_linear(epoch, factor):
    np.testing.assert_allclose(decay_factor(epoch, 10, 10), factor, rtol=1e-6)

"""Rows, BatchNorm, attention and the VAE."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mmer_jax.nn.attention import CrossAttention, SelfAttention, TransformerLayer
from mmer_jax.nn.cascade import ResidualCascade
from mmer_jax.nn.heads import FcClassifier
from mmer_jax.nn.layers import BatchNorm, hashed_uniform, merge_rows
from mmer_jax.nn.vae import ConditionalVAE


def normalise(x, weights, statistics=None):
    layer = BatchNorm()
    variables = layer.init(jax.random.key(0), x, None)
    if statistics:
        variables = variables | {"statistics": statistics}
    return layer.apply(variables, x, weights, mutable=["statistics"])


def test_batch_norm_is_that_of_the_rows_that_count():
    x = 3 + 2 * jax.random.normal(jax.random.key(1), (2, 9, 4))
    weights = jnp.ones((2, 9)).at[0, :4].set(0)
    out, updated = normalise(x, weights)
    rows = np.asarray(x)[np.asarray(weights) > 0]
    expected = (np.asarray(x) - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    kept = {name: np.asarray(value) for name, value in updated["statistics"].items()}
    np.testing.assert_allclose(kept["mean"], 0.1 * rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(kept["var"], 0.9 + 0.1 * rows.var(0, ddof=1), rtol=1e-5)
    # In prediction the running statistics count, and stay.
    out, same = normalise(x, None, kept)
    expected = (np.asarray(x) - kept["mean"]) / np.sqrt(kept["var"] + 1e-5)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(same["statistics"]["mean"], kept["mean"])


def test_batch_norm_without_rows_or_spread_stays_finite():
    x = jnp.ones((5, 3))
    for weights in (jnp.zeros(5), jnp.zeros(5).at[2].set(1.0), jnp.ones(5)):
        (out, updated), gradient = jax.value_and_grad(
            lambda x, w=weights: (lambda o, s: (o.sum(), s))(*normalise(x, w)), has_aux=True
        )(x)[0:2]
        assert np.isfinite(out) and np.isfinite(gradient).all()
        assert all(np.isfinite(v).all() for v in updated["statistics"].values())
    _, updated = normalise(x, jnp.zeros(5))
    np.testing.assert_array_equal(updated["statistics"]["var"], 1)


def test_attention_ignores_what_is_not_valid():
    x = jax.random.normal(jax.random.key(0), (2, 5, 8))
    valid = jnp.array([[True, True, True, False, False]] * 2)
    layer = SelfAttention(heads=2)
    params = layer.init(jax.random.key(1), x, valid)
    out = layer.apply(params, x, valid)
    np.testing.assert_allclose(
        out[:, :3], layer.apply(params, x[:, :3], valid[:, :3]), rtol=1e-4, atol=1e-5
    )
    nothing = layer.apply(params, x, jnp.zeros_like(valid))
    assert np.isfinite(nothing).all()


def test_attention_follows_a_permutation_of_its_tokens():
    x = jax.random.normal(jax.random.key(0), (5, 8))
    layer = TransformerLayer(heads=4, feedforward=6)
    params = layer.init(jax.random.key(1), x)
    order = jnp.array([3, 1, 0, 4, 2])
    np.testing.assert_allclose(
        layer.apply(params, x)[order], layer.apply(params, x[order]), rtol=1e-4, atol=1e-5
    )


def test_the_bias_of_keys_has_no_gradient():
    """Mathematically it is zero; what rounding leaves of it must not become steps of Adam."""
    x, other = jax.random.normal(jax.random.key(0), (2, 5, 4, 8))
    cases = (
        (SelfAttention(2), "projection", slice(8, 16), (x,)),
        (CrossAttention(2), "key_value", slice(0, 8), (x, other)),
    )
    for network, name, keys, inputs in cases:
        params = jax.jit(network.init)(jax.random.key(1), *inputs)

        def loss(params, network=network, inputs=inputs):
            return (network.apply(params, *inputs) ** 2).sum()

        found = jax.jit(jax.grad(loss))(params)["params"][name]["bias"]
        others = jnp.delete(found, jnp.arange(keys.start, keys.stop))
        assert not found[keys].any() and abs(others).min() > 1e-4


def test_the_vae_tells_its_modalities_apart():
    x = jax.random.normal(jax.random.key(0), (3, 2, 8))
    vae = ConditionalVAE(latent=4, layers=1, heads=2, feedforward=6, hidden=5)
    real = jnp.ones(3, bool)
    params = vae.init(jax.random.key(1), x, x, real)
    out, mean, log_variance = vae.apply(params, x, x, real)
    assert out.shape == x.shape and mean.shape == log_variance.shape == (3, 4)
    swapped, *_ = vae.apply(params, x[:, ::-1], x[:, ::-1], real)
    assert abs(swapped - out).max() > 1e-3
    drawn, *_ = vae.apply(params, x, x, real, sample=True, rngs={"latent": jax.random.key(2)})
    assert abs(drawn - out).max() > 1e-3


def test_merged_rows_lead_back():
    x = np.arange(3 * 4 * 5 * 2).reshape(3, 4, 5, 2)
    rows, restore = merge_rows(jnp.asarray(x), inner=2)
    np.testing.assert_array_equal(rows, x.swapaxes(0, 1).reshape(12, 5, 2))
    np.testing.assert_array_equal(restore(rows), x)


@pytest.mark.parametrize(
    "network",
    [ResidualCascade((8, 4), 2), FcClassifier((8,), 3), ConditionalVAE(4, 1, 2, 8, 8)],
    ids=lambda network: type(network).__name__,
)
def test_a_batch_divided_over_devices_stays_divided(network):
    """Under patterns nothing but weight gradients crosses devices."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    shape = (3, 8, 2, 8) if isinstance(network, ConditionalVAE) else (3, 8, 8)
    x = jax.device_put(jnp.ones(shape), NamedSharding(mesh, PartitionSpec(None, "data")))
    args = (x, jnp.ones(shape[:2], bool)) if isinstance(network, ConditionalVAE) else ()
    params = jax.device_put(
        jax.jit(lambda x: network.init(jax.random.key(0), x, *args))(x),
        NamedSharding(mesh, PartitionSpec()),
    )

    def loss(params, x):
        return sum(jnp.sum(y**2) for y in jax.tree.leaves(network.apply(params, x, *args)))

    program = jax.jit(jax.grad(loss)).lower(params, x).compile().as_text()
    assert "all-reduce(" in program
    assert not re.search("(all-gather|all-to-all|collective-permute)[(-]", program)


def test_hashed_numbers_are_uniform_and_independent():
    """Within five standard deviations: places, neighbours in place, keys next to each other."""
    n = 2**20
    draw = jax.jit(jax.vmap(lambda key: hashed_uniform(key, (n // 64, 64))))
    keys = [jax.random.key(0), jax.random.key(1), jax.random.fold_in(jax.random.key(0), 1)]
    found = np.asarray(draw(jnp.stack(keys)))
    assert found.min() >= 0 and found.max() < 1
    counts = np.apply_along_axis(lambda x: np.histogram(x, 256, (0, 1))[0], 1, found.reshape(3, n))
    chi_squared = ((counts - n / 256) ** 2 / (n / 256)).sum(axis=1)
    assert (np.abs(chi_squared - 255) < 5 * 510**0.5).all()
    x = (found - 0.5) * 12**0.5
    for a, b in [
        *((one[:, :-1], one[:, 1:]) for one in x),
        *((one[:-1], one[1:]) for one in x),
        *((one[: n // 128], one[n // 128 :]) for one in x),
        *((x[i], x[j]) for i, j in ((0, 1), (0, 2), (1, 2))),
        *((np.abs(x[i]), np.abs(x[j])) for i, j in ((0, 1), (0, 2), (1, 2))),
    ]:
        a, b = a - a.mean(), b - b.mean()
        assert abs((a * b).mean() / (a.std() * b.std())) < 5 / a.size**0.5


def test_hashed_numbers_do_not_depend_on_the_mesh():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    place = NamedSharding(mesh, PartitionSpec("data"))
    divided = jax.jit(lambda key: hashed_uniform(key, (16, 6)), out_shardings=place)
    whole = jax.jit(lambda key: hashed_uniform(key, (16, 6)))
    np.testing.assert_array_equal(divided(jax.random.key(3)), whole(jax.random.key(3)))

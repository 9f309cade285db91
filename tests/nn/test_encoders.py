"""Encoders: padding never counts, short sequences work, gradients are finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.nn.encoders import FcEncoder, LSTMEncoder, TextCNN

SEQUENCE_ENCODERS = {
    "maxpool": LSTMEncoder(6, "maxpool"),
    "last": LSTMEncoder(6, "last"),
    "attention": LSTMEncoder(6, "attention"),
    "textcnn": TextCNN(6, channels=5),
}


@pytest.fixture(params=SEQUENCE_ENCODERS)
def encoder(request):
    module = SEQUENCE_ENCODERS[request.param]
    params = module.init(jax.random.key(0), jnp.zeros((1, 7, 3)), jnp.ones(1, jnp.int32))

    def apply(x, lengths, params=params):
        return module.apply(params, jnp.asarray(x), jnp.asarray(lengths, jnp.int32))

    apply.params = params
    return apply


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(4, 7, 3)).astype(np.float32)


def test_what_stands_in_the_padding_does_not_matter(encoder, x):
    lengths = [7, 5, 2, 1]
    noisy = x.copy()
    for row, length in enumerate(lengths):
        noisy[row, length:] = 100.0
    np.testing.assert_array_equal(encoder(x, lengths), encoder(noisy, lengths))


def test_longer_padding_changes_nothing(encoder, x):
    lengths = [7, 5, 2, 1]
    longer = np.pad(x, ((0, 0), (0, 4), (0, 0)))
    np.testing.assert_allclose(encoder(x, lengths), encoder(longer, lengths), atol=1e-6)


def test_an_utterance_does_not_depend_on_its_batch(encoder, x):
    lengths = [7, 5, 2, 1]
    together = encoder(x, lengths)
    for row, length in enumerate(lengths):
        alone = encoder(x[row : row + 1, :length], [length])
        np.testing.assert_allclose(together[row : row + 1], alone, atol=1e-6)


@pytest.mark.parametrize("fill", [0.0, 3.0])
def test_gradients_are_finite_for_constant_and_shortest_input(encoder, fill):
    x = np.full((3, 7, 3), fill, np.float32)
    gradients = jax.grad(lambda p: encoder(x, [1, 1, 7], p).sum())(encoder.params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))


def test_fc_encoder_ends_with_its_last_layer():
    module = FcEncoder((5, 6))
    params = module.init(jax.random.key(0), jnp.zeros((1, 3)))
    assert module.apply(params, jnp.ones((4, 3))).shape == (4, 6)


def test_dropout_keeps_the_mean_and_depends_on_the_key():
    from mmer_jax.nn.layers import Dropout

    x = jnp.ones((200, 200))

    def drop(seed, rate):
        return Dropout().apply({}, x, rate, rngs={"dropout": jax.random.key(seed)})

    assert abs(float(drop(0, jnp.float32(0.3)).mean()) - 1) < 0.02
    assert (drop(0, 0.5) != drop(1, 0.5)).any()
    np.testing.assert_array_equal(drop(0, 0.0), x)
    np.testing.assert_array_equal(drop(0, None), x)

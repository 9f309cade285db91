"""Networks over dialogues: what may not be seen has no part, padding and order do not matter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.nn.dialogue import JointHead, MaskedAttention, TurnEncoder

TURNS, DIM, SIZE = 6, 5, 8
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def encoder():
    """(encode(params, x, keys), params) of a small TurnEncoder."""
    module = TurnEncoder(SIZE, heads=2, depth=3)
    params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((TURNS, DIM)), jnp.ones(TURNS, bool))
    return jax.jit(lambda params, x, keys: module.apply(params, x, keys)), params


@pytest.fixture(scope="module")
def dialogues():
    return jax.random.normal(jax.random.key(1), (4, TURNS, DIM))


KEYS = jnp.array([[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 0], [0, 0, 0, 1, 0, 0], [0] * 6], bool)


def test_unseen_turns_have_no_part(encoder, dialogues):
    encode, params = encoder
    out = encode(params, dialogues, KEYS)
    moved = encode(params, jnp.where(KEYS[..., None], dialogues, 99.0), KEYS)
    np.testing.assert_allclose(moved[KEYS], out[KEYS], **CLOSE)
    seen = encode(params, dialogues + KEYS[..., None], KEYS)
    assert abs(seen - out)[KEYS].max() > 1e-2


def test_padding_neighbours_and_order_do_not_matter(encoder, dialogues):
    encode, params = encoder
    out = encode(params, dialogues, KEYS)
    longer = jnp.pad(dialogues, [(0, 0), (0, 3), (0, 0)], constant_values=7.0)
    np.testing.assert_allclose(
        encode(params, longer, jnp.pad(KEYS, [(0, 0), (0, 3)]))[:, :TURNS], out, **CLOSE
    )
    np.testing.assert_allclose(encode(params, dialogues[::-1], KEYS[::-1])[::-1], out, **CLOSE)
    turned = encode(params, dialogues[:, ::-1], KEYS[:, ::-1])[:, ::-1]
    np.testing.assert_allclose(turned, out, **CLOSE)


def test_where_nothing_may_be_seen_attention_is_zero():
    module = MaskedAttention(heads=2)
    x = jax.random.normal(jax.random.key(0), (2, TURNS, SIZE))
    keys = jnp.array([[0] * TURNS, [1] * TURNS], bool)
    params = jax.jit(module.init)(jax.random.key(1), x, x, keys)

    def total(params, x):
        out = module.apply(params, x, x, keys)
        return jnp.sum(out**2), out

    (_, out), gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))(
        params, x
    )
    # The MLP of 0 is the same for every turn: biases alone, which start at 0.
    np.testing.assert_array_equal(out[0], 0)
    assert abs(out[1]).min() > 0
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
    np.testing.assert_array_equal(gradients[1][0], 0)


def test_attention_is_that_of_the_seen_turns_alone():
    module = MaskedAttention(heads=2, project=True)
    x, y = (jax.random.normal(jax.random.key(k), (TURNS, SIZE)) for k in (0, 1))
    keys = KEYS[1]
    params = jax.jit(module.init)(jax.random.key(2), x, y, keys)
    apply = jax.jit(module.apply)
    alone = apply(params, x[: keys.sum()], y[keys], jnp.ones(keys.sum(), bool))
    np.testing.assert_allclose(apply(params, x, y, keys)[: keys.sum()], alone, **CLOSE)


def test_dropout_is_drawn_for_every_block():
    module = TurnEncoder(SIZE, heads=2, depth=2)
    x, keys = jax.random.normal(jax.random.key(0), (TURNS, DIM)), jnp.ones(TURNS, bool)
    params = jax.jit(module.init)(jax.random.key(0), x, keys)
    apply = jax.jit(lambda rate, key: module.apply(params, x, keys, rate, rngs={"dropout": key}))
    out = module.apply(params, x, keys)
    np.testing.assert_allclose(apply(0.0, jax.random.key(1)), out, **CLOSE)
    first, second = apply(0.5, jax.random.key(1)), apply(0.5, jax.random.key(2))
    assert abs(first - second).max() > 1e-3 and abs(first - out).max() > 1e-3


def test_the_joint_head_reads_and_reconstructs():
    module = JointHead(n_outputs=3, n_features=11, width=7)
    x = jax.random.normal(jax.random.key(0), (2, TURNS, 2 * SIZE))
    params = jax.jit(module.init)(jax.random.key(1), x)
    logits, features = module.apply(params, x)
    assert logits.shape == (2, TURNS, 3) and features.shape == (2, TURNS, 11)


def test_dialogues_in_one_row_do_not_see_each_other(encoder, dialogues):
    encode, params = encoder
    module = TurnEncoder(SIZE, heads=2, depth=3)
    row = dialogues[:2].reshape(1, -1, DIM)
    segments = jnp.repeat(jnp.arange(2), TURNS)[None]
    together = jax.jit(lambda x, keys: module.apply(params, x, keys, None, segments))
    out = together(row, KEYS[:2].reshape(1, -1)).reshape(2, TURNS, -1)
    np.testing.assert_allclose(out, encode(params, dialogues[:2], KEYS[:2]), **CLOSE)

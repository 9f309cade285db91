"""How much of what is missing is imagined: R² over the slots that a pattern takes away."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import one_batch, tables, trial_data

from configs import utt_fusion
from mmer_jax.data.feed import Feed
from mmer_jax.data.missing import missing_patterns
from mmer_jax.data.synthetic import make_synthetic
from mmer_jax.mesh import make_mesh
from mmer_jax.methods import make_stages
from mmer_jax.programs import Programs

N = 29  # utterances of one_batch


@pytest.fixture(scope="module")
def corpus():
    made = make_synthetic(n_utterances=60)
    present = made.present.copy()
    present[:10, 2] = False  # nothing that could be imagined
    return dataclasses.replace(made, present=present)


def imagination(corpus, imagine, batch_size):
    """R² [K] of the first N utterances, by the program."""
    stage = make_stages(utt_fusion.get_config(), corpus.spec)[0]
    stage = dataclasses.replace(stage, patterns="missing", imagine=imagine)
    mesh = make_mesh(1, batch_size, n_devices=1)
    feed = Feed(corpus, mesh, placement="device", memory_budget=0)
    rows = np.full(-(-N // batch_size) * batch_size, -1, np.int32)
    rows[:N] = np.arange(N)
    table = tables(rows.reshape(-1, 1, batch_size))
    return Programs(stage, corpus.spec, mesh).imagination({}, trial_data(corpus, 1), feed, table)[0]


def answers(params, batch):
    """Imagined and true numbers [K, B, M, 2] that depend on the utterance and the pattern."""
    text = batch.features["text"].sum(axis=(1, 2))
    target = (
        jnp.stack([text, jnp.sin(text)], axis=-1)[None, :, None]
        + jnp.arange(3.0)[None, None, :, None]
    )
    target = jnp.broadcast_to(target, (*batch.available.shape, 2))
    return target + 0.3 * jnp.cos(5 * target) + batch.available[..., :1, None], target


@pytest.mark.parametrize("batch_size", [32, 8])
def test_it_is_the_share_of_variance_in_the_missing_slots(corpus, batch_size):
    batch = one_batch(corpus, trial_data(corpus, 1))
    imagined, target = (np.asarray(x, np.float64) for x in jax.jit(answers)({}, batch))
    expected = []
    for k, pattern in enumerate(missing_patterns(3)):
        errors = variance = 0.0
        for m in np.flatnonzero(~pattern):
            there = corpus.present[:N, m] & (corpus.present[:N] & pattern).any(axis=1)
            goal, guess = target[k, 1:, m][there], imagined[k, 1:, m][there]  # the first only pads
            errors += ((guess - goal) ** 2).sum()
            variance += ((goal - goal.mean(axis=0)) ** 2).sum()
        expected.append(1 - errors / variance)
    found = imagination(corpus, answers, batch_size)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_truth_has_one_and_what_lacks_everywhere_has_none(corpus):
    found = imagination(corpus, lambda params, batch: (answers(params, batch)[1],) * 2, 32)
    np.testing.assert_allclose(found, 1.0)
    present = corpus.present.copy()
    present[:, 2] = False
    blind = dataclasses.replace(corpus, present=present)
    found = imagination(blind, answers, 32)
    patterns = missing_patterns(3)
    alike = (patterns[:, :2] == patterns[:, :1]).all(axis=1)  # it alone is taken, or left
    np.testing.assert_array_equal(np.isfinite(found), ~alike)

"""Released behaviours, each both ways: what the option changes and what the default guarantees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import all_rows, one_batch, shrunk, trial_data

from configs import mmin, nmer, utt_fusion
from mmer_jax.data.feed import Feed
from mmer_jax.data.noise import corruption
from mmer_jax.data.synthetic import make_synthetic
from mmer_jax.mesh import make_mesh
from mmer_jax.methods import make_stages
from mmer_jax.programs import Programs


@pytest.fixture(scope="module")
def corpus():
    return make_synthetic(n_utterances=60)


def last_stage(corpus, config):
    """(stage, batch, params, hyper) of a method's last stage."""
    *before, stage = make_stages(config, corpus.spec)
    mesh = make_mesh(1, 32, n_devices=1)
    feed = Feed(corpus, mesh, placement="device", memory_budget=0)
    data, earlier = trial_data(corpus, 1), {}
    for first in before:
        earlier[first.name] = Programs(first, corpus.spec, mesh).init(data.key, earlier).params
    data = Programs(stage, corpus.spec, mesh).prepare(
        earlier, data, feed, all_rows(corpus, 1), np.ones((1, len(corpus)), bool)
    )
    params = stage.init(jax.random.key(1), jax.tree.map(lambda x: x[0], earlier))
    hyper = {k: jnp.float32(v) for k, v in stage.hyper.items()}
    hyper |= {"dropout": jnp.float32(0), "encoder_dropout": jnp.float32(0)}
    return stage, one_batch(corpus, data, corruption(config)), params, hyper


def half(batch):
    """The first 15 rows of a batch."""
    return batch._replace(
        features={k: x[:15] for k, x in batch.features.items()},
        noisy=batch.noisy and {k: x[:15] for k, x in batch.noisy.items()},
        lengths={k: x[:15] for k, x in batch.lengths.items()},
        present=batch.present[:15],
        labels=batch.labels[:15],
        weights=batch.weights[:15],
        turns=batch.turns[:15],
        available=batch.available[:, :15],
    )


@pytest.mark.parametrize(
    ("quirk", "mixes"),
    [
        ({}, False),
        ({"quirks__attention": "batch"}, True),
        ({"quirks__latent": "sample"}, True),  # noise by the position in the batch
    ],
)
def test_nmer_mixes_utterances_only_as_released(corpus, quirk, mixes):
    stage, batch, params, _ = last_stage(corpus, shrunk(nmer.get_config(), **quirk))
    predict = jax.jit(stage.predict)
    whole, part = predict(params, batch)[:, 1:15], predict(params, half(batch))[:, 1:15]
    assert (abs(whole - part).max() > 1e-3) == mixes


def test_released_attention_ignores_rows_that_fill_up_the_batch(corpus):
    config = shrunk(nmer.get_config(), quirks__attention="batch")
    stage, batch, params, _ = last_stage(corpus, config)
    moved = {name: x.at[0].set(9.0) for name, x in batch.noisy.items()}
    filled = batch._replace(available=batch.available.at[:, 0].set(False))
    predict = jax.jit(stage.predict)
    a, b = predict(params, filled), predict(params, filled._replace(noisy=moved))
    np.testing.assert_allclose(a[:, 1:], b[:, 1:], atol=1e-5)


def test_released_kl_is_the_sum_over_the_batch(corpus):
    terms = {}
    for kl in ("mean", "sum"):
        config = shrunk(nmer.get_config(), quirks__kl=kl)
        stage, batch, params, hyper = last_stage(corpus, config)
        terms[kl] = jax.jit(stage.loss)(params, batch, jax.random.key(0), hyper)[1]["kl"]
    np.testing.assert_allclose(terms["sum"], terms["mean"] * 6 * 29, rtol=1e-4)


def test_released_padding_enters_recurrence_and_pooling(corpus):
    found = {}
    for masking in (True, False):
        config = shrunk(utt_fusion.get_config(), quirks__pad_masking=masking)
        stage, batch, params, _ = last_stage(corpus, config)
        # Real features with their zeros behind them, and the same with fewer zeros.
        shorter = {k: jnp.maximum(x - 1, 1) for k, x in batch.lengths.items()}
        predict = jax.jit(stage.predict)
        logits = predict(params, batch)
        found[masking] = abs(logits - predict(params, batch._replace(lengths=shorter))).max()
    assert found[False] == 0 and found[True] > 1e-4  # lengths count only where padding does not


@pytest.mark.slow
def test_released_initialisation_of_mmin_explodes(corpus):
    cycle = {}
    for init in ("scaled", "kaiming"):
        config = shrunk(
            mmin.get_config(), quirks__cascade_init=init, model__blocks=5, model__embedding=32
        )
        stage, batch, params, hyper = last_stage(corpus, config)
        cycle[init] = jax.jit(stage.loss)(params, batch, jax.random.key(0), hyper)[1]["cycle"]
    assert cycle["kaiming"] > 100 * cycle["scaled"]


@pytest.mark.parametrize("backward", ["own", "shared", "none"])
def test_mmin_variants_of_the_backward_cascade(corpus, backward):
    config = shrunk(mmin.get_config(), model__backward_cascade=backward)
    stage, batch, params, hyper = last_stage(corpus, config)
    assert ("backward_cascade" in params) == (backward == "own")

    def loss(params):
        return stage.loss(params, batch, jax.random.key(0), hyper | {"imagination_weight": 0.0})

    (_, terms), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    assert ("cycle" in terms) == (backward != "none")
    # Only a cycle leads the gradient into the transition, which the latents do not pass.
    reached = float(abs(gradient["cascade"]["transition1"]["kernel"]).max()) > 0
    assert reached == (backward != "none")

"""What every method that trains on missing or noisy modalities must hold."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import all_rows, one_batch, shrunk, tables, trial_data

from configs import augmentation, hardy, ifmmin, mmin, nmer, ramer
from mmer_jax.data.feed import Feed
from mmer_jax.data.missing import missing_patterns
from mmer_jax.data.noise import corruption
from mmer_jax.data.synthetic import make_synthetic
from mmer_jax.data.units import make_grouping
from mmer_jax.mesh import make_mesh
from mmer_jax.methods import make_stages
from mmer_jax.methods.stage import Batch, Stage
from mmer_jax.programs import Programs

METHODS = {
    "augmentation": augmentation,
    "mmin": mmin,
    "ifmmin": ifmmin,
    "nmer": nmer,
    "ramer": ramer,
    "hardy": hardy,
}


class Case(NamedTuple):
    """A method's last stage on one batch of all patterns, without dropout."""

    name: str
    stage: Stage
    batch: Batch
    params: dict
    predict: Callable  # (params, batch) -> logits, compiled
    gradient_of: Callable  # (params, batch) -> (loss, gradient), compiled


SLOW = {"hardy": pytest.mark.slow}


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=SLOW.get(name, ())) for name in METHODS]
)
def case(request):
    vectors = {"vector_dims": (7, 5, 6), "sequence_dims": ()} if request.param == "hardy" else {}
    corpus = make_synthetic(n_utterances=60, **vectors)
    config = shrunk(METHODS[request.param].get_config())
    *before, stage = make_stages(config, corpus.spec)
    mesh = make_mesh(1, 32, n_devices=1)
    feed = Feed(corpus, mesh, placement="device", memory_budget=0)
    data, earlier = trial_data(corpus, 1), {}
    for first in before:
        earlier[first.name] = Programs(first, corpus.spec, mesh).init(data.key, earlier).params
    known = [(feed, tables(np.arange(32).reshape(1, 1, 32)))]
    data = Programs(stage, corpus.spec, mesh).prepare(
        earlier,
        data,
        feed,
        all_rows(corpus, 1, stage.unit),
        np.ones((1, len(corpus)), bool),
        known,
    )
    params = stage.init(jax.random.key(1), jax.tree.map(lambda x: x[0], earlier))
    grouping = make_grouping(corpus, stage.unit) if stage.unit == "dialogue" else None
    batch = one_batch(corpus, data, corruption(config), grouping)
    hyper = {k: jnp.float32(v) for k, v in stage.hyper.items()}
    hyper |= {"dropout": jnp.float32(0), "encoder_dropout": jnp.float32(0)}

    def loss(params, batch):
        return stage.loss(params, batch, jax.random.key(0), hyper)[0]

    return Case(
        request.param,
        stage,
        batch,
        params,
        jax.jit(stage.predict),
        jax.jit(jax.value_and_grad(loss)),
    )


def under(batch, which):
    """The batch under some of its patterns, as masks of the utterances."""
    return batch._replace(available=batch.available[which], patterns=None)


def test_all_patterns_equal_the_average_of_one_pattern_losses(case):
    if case.name in ("nmer", "ramer"):
        pytest.skip("their batch normalisation (and NMER's latent noise) is over all patterns")
    together, gradient = case.gradient_of(case.params, case.batch)
    singles = [case.gradient_of(case.params, under(case.batch, slice(k, k + 1))) for k in range(6)]
    np.testing.assert_allclose(together, np.mean([s for s, _ in singles]), rtol=1e-6)
    mean = jax.tree.map(lambda *g: sum(g) / 6, *[g for _, g in singles])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * abs(b).max() + 1e-7),
        gradient,
        mean,
    )


def test_padding_rows_do_not_enter_the_loss(case):
    moved = {name: x.at[0].set(50.0) for name, x in case.batch.features.items()}
    other = case.batch._replace(features=moved, labels=case.batch.labels.at[0].set(3))
    if other.noisy is not None:
        other = other._replace(noisy={name: x.at[0].set(9.0) for name, x in other.noisy.items()})
    assert case.gradient_of(case.params, case.batch)[0] == case.gradient_of(case.params, other)[0]


def test_a_pattern_does_not_depend_on_the_patterns_beside_it(case):
    logits = case.predict(case.params, case.batch)
    flipped = under(case.batch, slice(None, None, -1))
    np.testing.assert_allclose(
        logits[::-1], case.predict(case.params, flipped), rtol=1e-4, atol=1e-4
    )


def test_an_utterance_does_not_depend_on_its_batch(case):
    """Order and neighbours; none of the sound defaults mixes utterances."""
    logits = case.predict(case.params, case.batch)

    def turned(x):
        return x[::-1]

    batch = case.batch
    other = batch._replace(
        features=jax.tree.map(turned, batch.features),
        lengths=jax.tree.map(turned, batch.lengths),
        present=turned(batch.present),
        labels=turned(batch.labels),
        weights=turned(batch.weights),
        turns=batch.turns[::-1, ::-1],
        available=batch.available[:, ::-1],
        noisy=jax.tree.map(turned, batch.noisy),
        frozen=jax.tree.map(turned, batch.frozen),
        rows=turned(batch.rows),
    )
    np.testing.assert_allclose(
        logits[:, ::-1], case.predict(case.params, other), rtol=1e-4, atol=1e-4
    )
    alone = case.predict(case.params, batch._replace(weights=batch.weights.at[5:].set(0)))
    np.testing.assert_allclose(alone[:, :5], logits[:, :5], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("what", ["one row", "constant", "equal rows", "nothing left", "padding"])
def test_gradients_are_finite(case, what):
    batch = case.batch
    if what == "one row":
        batch = batch._replace(weights=jnp.zeros_like(batch.weights).at[4].set(1.0))
    elif what == "nothing left":
        batch = batch._replace(available=jnp.zeros_like(batch.available))
    else:
        change = {
            "constant": lambda x: jnp.full_like(x, 2.0),
            "equal rows": lambda x: jnp.broadcast_to(x[3:4], x.shape),
            "padding": jnp.zeros_like,
        }[what]
        batch = batch._replace(
            features=jax.tree.map(change, batch.features), noisy=jax.tree.map(change, batch.noisy)
        )
    if what == "padding":
        lengths = {name: jnp.ones_like(length) for name, length in batch.lengths.items()}
        batch = batch._replace(lengths=lengths)
    for k in (slice(None), *(slice(k, k + 1) for k in range(6))):  # all patterns, and each alone
        loss, gradient = case.gradient_of(case.params, under(batch, k))
        assert np.isfinite(loss)
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


def test_what_a_pattern_takes_away_never_reaches_the_prediction(case):
    logits = case.predict(case.params, case.batch)
    for k, pattern in enumerate(missing_patterns(3)):
        hidden = {
            name: x if there else x + 7.0
            for (name, x), there in zip(case.batch.features.items(), pattern, strict=True)
        }
        changed = case.predict(case.params, case.batch._replace(features=hidden))
        np.testing.assert_allclose(logits[k], changed[k], rtol=1e-5, atol=1e-5)


def test_noise_stands_in_for_what_a_pattern_takes_away(case):
    """Given noisy features a method's prediction follows them where something is taken away."""
    batch = case.batch._replace(noisy=case.batch.features)
    logits = case.predict(case.params, batch)
    everything = jnp.broadcast_to(batch.present, batch.available.shape)
    everything = batch._replace(available=everything, patterns=None)
    full = case.predict(case.params, everything)
    # Noise that leaves all of the signal: every pattern equals full modality.
    np.testing.assert_allclose(logits[:, 1:], full[:, 1:], rtol=1e-3, atol=1e-3)
    absent = case.predict(case.params, batch._replace(noisy=None))
    assert abs(logits - absent).max() > 1e-2


def test_the_encoders_run_once_whatever_the_number_of_patterns(case):
    """FLOPs of six patterns: far from six times those of one."""

    def flops(batch):
        return case.predict.lower(case.params, batch).compile().cost_analysis()["flops"]

    batch = jax.tree.map(lambda x: x, case.batch)
    one, six = flops(under(batch, slice(1))), flops(batch)
    encoders = 1 if case.batch.noisy is None else 2
    assert six - one < 5 * one and six < one * (3 if encoders == 2 else 4)

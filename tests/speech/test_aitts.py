"""Ai-TTS: what its terms must not depend on, and what each ablation leaves out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from aitts_setting import make_batch, make_model

from mmer_jax.speech.aitts import CONTROLS
from mmer_jax.speech.fastspeech import Text, Voice
from mmer_jax.speech.length import frames_of


def said(batch):
    return Text(jnp.asarray(batch.phones), jnp.asarray(batch.words))


def padded(batch, more_phones=3, more_frames=5):
    """The batch with more padding."""
    phones = ("phones", "durations", "pitch", "energy", "intensity", "words")
    wide = {
        name: np.pad(
            getattr(batch, name),
            ((0, 0), (0, more_phones)),
            constant_values=-1 if name == "words" else 0,
        )
        for name in phones
    }
    mel = np.pad(batch.mel, ((0, 0), (0, more_frames), (0, 0)))
    return batch._replace(mel=mel, **wide)


@pytest.mark.parametrize("control", CONTROLS)
def test_terms_do_not_depend_on_padding(control):
    model, params = make_model(control=control)
    terms = jax.jit(lambda batch: model.terms(params, batch, jax.random.key(1), None))
    expected, found = terms(make_batch()), terms(padded(make_batch()))
    assert set(found) >= {"mel", "duration", "pitch", "energy"}
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-5, atol=1e-6, err_msg=name)


def test_an_intensity_of_zero_is_no_accent_at_all():
    model, params = make_model()
    batch = make_batch()
    text, none = said(batch), jnp.zeros(batch.phones.shape)
    plan = jax.jit(lambda voice: model.plan(params, text, voice)[0])
    plans = [plan(Voice(batch.speaker, jnp.full(4, accent), none)) for accent in range(3)]
    np.testing.assert_allclose(plans[1], plans[0], atol=1e-6)
    np.testing.assert_allclose(plans[2], plans[0], atol=1e-6)
    strong = Voice(batch.speaker, jnp.full(4, 2), jnp.where(text.spoken, 1.0, 0.0))
    assert float(jnp.abs(plan(strong) - plans[2]).max()) > 1e-2


def test_what_control_tells_the_network():
    batch = make_batch()
    text = said(batch)
    shaped = {
        name: np.asarray(make_model(control=name)[0].shaped(batch.intensity, text))
        for name in ("phone", "utterance", "none")
    }
    np.testing.assert_array_equal(shaped["phone"], batch.intensity)
    np.testing.assert_array_equal(shaped["none"], 0.0)
    spoken = np.asarray(text.spoken)
    for row, values, there in zip(batch.intensity, shaped["utterance"], spoken, strict=True):
        np.testing.assert_allclose(values[there], row[there].mean(), rtol=1e-6)
        np.testing.assert_array_equal(values[~there], 0.0)


def test_consistency_moves_the_network_but_neither_statistics_nor_prosody():
    model, params = make_model()
    batch = make_batch()

    def loss(params):
        return jnp.sum(
            model.consistency(params, batch, jax.random.key(3))["consistency"] * batch.weights
        )

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    assert float(value) > 0
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))
    assert float(optax.tree.norm(gradient["decoder"])) > 0
    assert float(optax.tree.norm(gradient["style"])) > 0
    assert float(optax.tree.norm(gradient["scaling"])) == 0
    assert float(optax.tree.norm(gradient["intensity"])) == 0  # requests are not to be made easy
    for name in ("duration", "pitch", "energy"):
        assert float(optax.tree.norm(gradient["adaptor"][name])) == 0  # recordings alone teach them


def test_training_on_consistency_makes_the_measured_intensity_follow():
    model, params = make_model()
    batch, optimizer = make_batch(), optax.adam(1e-2)

    @jax.jit
    def loss(params, key):
        return jnp.mean(model.consistency(params, batch, key)["consistency"])

    @jax.jit
    def step(params, state, key):
        updates, state = optimizer.update(jax.grad(loss)(params, key), state)
        return optax.apply_updates(params, updates), state

    def score(params):
        return np.mean([float(loss(params, jax.random.key(1000 + i))) for i in range(8)])

    before, state = score(params), optimizer.init(params)
    for number in range(80):
        params, state = step(params, state, jax.random.key(number))
    assert score(params) < 0.7 * before


def test_the_adversary_pushes_speakers_out_of_the_accented_phones():
    model, params = make_model(control="adversarial")
    batch = make_batch()

    @jax.jit
    def loss(params, key):
        return jnp.mean(model.terms(params, batch, key, None)["adversary"])

    gradient = jax.jit(jax.grad(loss))(params, jax.random.key(0))
    step = jax.tree.map(lambda p, g: p - 0.05 * g, params, gradient)
    only_classifier = params | {"adversary": step["adversary"]}
    only_encoder = params | {"encoder": step["encoder"], "style": step["style"]}
    before = loss(params, jax.random.key(0))
    assert loss(only_classifier, jax.random.key(0)) < before < loss(only_encoder, jax.random.key(0))


def test_synthesis_is_the_same_alone_and_in_a_batch():
    model, params = make_model()
    batch = make_batch()

    @jax.jit
    def mel(batch):
        text = said(batch)
        voice = Voice(batch.speaker, batch.accent, batch.intensity)
        x, prosody = model.plan(params, text, voice)
        return model.render(params, x, text, prosody, frames_of(batch.durations, 24))

    alone = jax.tree.map(lambda leaf: leaf[1:2], batch)
    np.testing.assert_allclose(mel(alone)[0], mel(batch)[1], atol=1e-5)

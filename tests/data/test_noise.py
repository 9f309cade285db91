"""Noise: schedules, what it does to features, and that every method meets the same."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import shrunk, train

from configs import utt_fusion
from mmer_jax.config import base
from mmer_jax.data.noise import SCHEDULES, Noise, NoiseDraw, add_noise, betas, corruption, scales
from mmer_jax.errors import UserError

SEEDS = np.arange(400, dtype=np.uint32)


def noise(signal=0.0, scale=1.0, threshold=None, seeds=SEEDS):
    ones = jnp.ones(len(seeds))
    return Noise(jnp.asarray(seeds), signal * ones, scale * ones, threshold)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("n_steps", [20, 100])
def test_the_signal_falls_and_the_power_stays(schedule, n_steps):
    signal, scale = scales(betas(schedule, n_steps))
    assert len(signal) == n_steps and (np.diff(signal) < 0).all()
    np.testing.assert_allclose(signal**2 + scale**2, 1)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(UserError, match="noise.schedule is 'sqrt'; choose one of: linear"):
        betas("sqrt", 10)


def test_gaussian_noise_is_standard_normal_and_independent():
    x = jnp.zeros((400, 7, 5))
    audio, text = (np.asarray(add_noise(noise(), x, channel)) for channel in (0, 1))
    assert abs(audio.mean()) < 0.03 and abs(audio.std() - 1) < 0.03
    flat = np.concatenate([audio.reshape(400, -1), text.reshape(400, -1)], axis=1)
    correlation = np.corrcoef(flat.T) - np.eye(70)
    assert abs(correlation).max() < 0.25


def test_impulses_are_signs_above_the_threshold():
    x = jnp.zeros((400, 30))
    impulses = np.asarray(add_noise(noise(threshold=jnp.float32(0.7)), x, 0))
    assert set(np.unique(impulses)) == {-1.0, 0.0, 1.0}
    assert abs((impulses != 0).mean() - 0.3) < 0.02 and abs(impulses.mean()) < 0.02


def test_scales_weigh_signal_and_noise():
    x = jnp.ones((400, 3))
    pure = add_noise(noise(), x, 0)
    np.testing.assert_allclose(add_noise(noise(0.8, 0.6), x, 0), 0.8 + 0.6 * pure, rtol=1e-5)


def test_noise_does_not_depend_on_padding_or_batch():
    x = jnp.zeros((400, 6, 5))
    long = add_noise(noise(), jnp.zeros((400, 9, 5)), 0)
    np.testing.assert_array_equal(add_noise(noise(), x, 0), long[:, :6])
    some = SEEDS[[7, 3, 200]]
    np.testing.assert_array_equal(add_noise(noise(seeds=some), x[:3], 0), long[some, :6])


def test_evaluation_noise_is_a_function_of_the_utterance():
    settings = base().noise
    ids = np.array([f"u{i}" for i in range(500)])
    made = NoiseDraw("gaussian", 60, 0, 1).of_corpus(ids, settings, "test")
    order = np.random.default_rng(0).permutation(500)
    again = NoiseDraw("gaussian", 60, 0, 1).of_corpus(ids[order], settings, "test")
    np.testing.assert_array_equal(made.seeds[order], again.seeds)
    np.testing.assert_array_equal(made.signal[order], again.signal)
    for other in (NoiseDraw("gaussian", 60, 1, 1), NoiseDraw("gaussian", 60, 0, 2)):
        assert (other.of_corpus(ids, settings, "test").seeds != made.seeds).mean() > 0.99
    steps = np.searchsorted(-scales(betas("scaled_linear", 60))[0], -made.signal)
    counts = np.histogram(steps, bins=6, range=(0, 60))[0]
    assert counts.sum() == 500 and counts.min() > 50


def test_training_draws_one_step_a_batch_and_validation_one_a_row():
    import jax

    config = base()
    assert corruption(config) is None
    config.train.noise = "impulse"
    made = corruption(config)
    batches = [made.of_batch(jax.random.key(i), 8) for i in range(30)]
    assert all(len(set(np.asarray(b.signal))) == 1 for b in batches)
    assert len({float(b.signal[0]) for b in batches}) > 15
    assert batches[0].threshold == np.float32(0.7)
    rows = made.of_rows(jnp.arange(200))
    assert len(set(np.asarray(rows.signal))) > 50
    np.testing.assert_array_equal(made.of_rows(jnp.arange(200)[::-1]).signal, rows.signal[::-1])


@pytest.fixture(scope="module")
def noisy_run(tmp_path_factory):
    """utt_fusion under noise, with another evaluation batch and mesh in the second run."""
    runs = []
    for batch_size in (32, 48):
        config = shrunk(
            utt_fusion.get_config(),
            data__source="synthetic",
            data__label="emotion",
            data__splits="session",
            trials__folds=[0],
            eval__protocols=("pattern", "noise"),
            eval__noise=("gaussian", "impulse"),
            eval__noise_levels=(1, 50),
            eval__mask_draws=2,
            eval__batch_size=batch_size,
        )
        runs.append(train(config, tmp_path_factory.mktemp("noise"))[0])
    return runs


def test_noise_rows_pool_patterns_and_draws(noisy_run):
    rows = [r for r in noisy_run[0] if r.protocol == "noise" and r.metric == "WA"]
    names = ["gaussian:1", "gaussian:50", "impulse:1", "impulse:50"]
    assert [r.condition for r in rows] == names
    one = next(r for r in noisy_run[0] if r.protocol == "pattern" and r.metric == "WA")
    assert {r.n for r in rows} == {2 * 6 * one.n}


def test_noise_scores_do_not_depend_on_evaluation_batches(noisy_run):
    assert [r.value for r in noisy_run[0]] == [r.value for r in noisy_run[1]]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"eval__noise": ("pink",)}, "eval.noise holds 'pink'; choose some of: gaussian, impulse"),
        ({"eval__noise_levels": (0,)}, "eval.noise_levels holds 0; a level is a number of steps"),
        ({"train__noise": "pink"}, "train.noise is 'pink'; choose one of: none, gaussian, impulse"),
        ({"noise__schedule": "sqrt"}, "noise.schedule is 'sqrt'; choose one of: linear"),
    ],
)
def test_faulty_noise_is_explained(tmp_path, overrides, message):
    config = shrunk(
        utt_fusion.get_config(),
        data__source="synthetic",
        data__label="emotion",
        eval__protocols=("noise",),
        **overrides,
    )
    with pytest.raises(UserError, match=message):
        train(config, tmp_path)

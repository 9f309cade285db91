"""The network: padding changes nothing, gradients reach the spectrum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.errors import UserError
from mmer_jax.speech.batch import SpeechBatch
from mmer_jax.speech.recogniser import Network, cosines, load_recogniser, posterior_frames
from mmer_jax.speech.recogniser_task import frame_targets


@pytest.fixture(scope="module")
def network():
    network = Network(channels=6, hidden=5, layers=2, cepstra=12)
    rng = np.random.default_rng(0)
    mel = rng.normal(size=(2, 30, 80)).astype(np.float32)
    params = network.init(jax.random.key(0), mel, np.array([30, 21]))
    return network, params, mel


def test_padding_changes_nothing(network):
    network, params, mel = network
    n_frames = np.array([30, 21])
    whole = network.apply(params, mel, n_frames)
    alone = network.apply(params, mel[1:, :21], n_frames[1:])
    real = np.arange(30)[None, :, None] < 21
    dirty = network.apply(params, np.where(real, mel[1:], np.float32(7)), n_frames[1:])
    assert whole.shape == (2, 15, 41) and posterior_frames(21) == 11
    np.testing.assert_allclose(whole[1, :11], alone[0], atol=1e-5)
    np.testing.assert_allclose(whole[1, :11], dirty[0, :11], atol=1e-5)


def test_posteriors_are_distributions_that_ignore_level_and_microphone(network):
    network, params, mel = network
    found = network.apply(params, mel, np.array([30, 21]))
    np.testing.assert_allclose(np.exp(found).sum(axis=-1), 1, rtol=1e-5)
    microphone = np.linspace(1, 3, 80, dtype=np.float32)[None, None]
    louder = network.apply(params, mel + microphone, np.array([30, 21]))
    np.testing.assert_allclose(found[0], louder[0], atol=1e-4)


def test_gradients_reach_every_real_frame_and_no_padding(network):
    network, params, mel = network

    def first_phone(x):
        return network.apply(params, x, jnp.array([30, 21]))[1, :11, 1].sum()

    gradient = np.abs(jax.grad(first_phone)(jnp.asarray(mel))).sum(axis=2)
    assert (gradient[1, :21] > 0).all() and not gradient[1, 21:].any() and not gradient[0].any()


def test_cosines_are_scipys_and_smooth_the_spectrum():
    from scipy.fft import dct

    x = np.random.default_rng(0).normal(size=(5, 80))
    np.testing.assert_allclose(x @ cosines(80, 12), dct(x, norm="ortho")[:, :12], atol=1e-5)


def test_frames_belong_to_the_phone_that_has_most_of_them():
    empty = np.zeros((1, 3), np.float32)
    batch = SpeechBatch(
        mel=np.zeros((1, 8, 80)),
        n_frames=np.array([8]),
        phones=np.array([[40, 7, 40]]),
        n_phones=np.array([3]),
        durations=np.array([[1, 4, 3]]),
        pitch=empty,
        energy=empty,
        intensity=empty,
        speaker=np.zeros(1),
        accent=np.zeros(1),
        words=np.array([[-1, 0, -1]]),
        weights=np.ones(1),
    )
    targets, known = frame_targets(batch, 5)
    assert targets[0, 1:4].tolist() == [7, 7, 40] and known[0].tolist() == [1, 1, 1, 1, 0]
    unknown = batch._replace(durations=np.zeros((1, 3), int))
    assert not np.asarray(frame_targets(unknown, 5)[1]).any()


def test_other_workdirs_are_no_recognisers(tmp_path):
    with pytest.raises(UserError, match="is no workdir of a recogniser; train one with"):
        load_recogniser(tmp_path)

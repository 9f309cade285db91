"""The network: padding changes nothing, gradients reach the spectrum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax.errors import UserError
from mmer_jax.speech.batch import SpeechBatch
from mmer_jax.speech.recogniser import Network, cosines, load_recogniser, posterior_frames
from mmer_jax.speech.recogniser_task import frame_targets, self_aligned


@pytest.fixture(scope="module")
def network():
    """(what gives posteriors, parameters, two spectrograms)."""
    network = Network(channels=6, hidden=5, layers=2, cepstra=12)
    rng = np.random.default_rng(0)
    mel = rng.normal(size=(2, 30, 80)).astype(np.float32)
    params = jax.jit(network.init)(jax.random.key(0), mel, np.array([30, 21]))
    return jax.jit(network.apply), params, mel


def test_padding_changes_nothing(network):
    posteriors, params, mel = network
    n_frames = np.array([30, 21])
    whole = posteriors(params, mel, n_frames)
    alone = posteriors(params, mel[1:, :21], n_frames[1:])
    real = np.arange(30)[None, :, None] < 21
    dirty = posteriors(params, np.where(real, mel[1:], np.float32(7)), n_frames[1:])
    assert whole.shape == (2, 15, 41) and posterior_frames(21) == 11
    np.testing.assert_allclose(whole[1, :11], alone[0], atol=1e-5)
    np.testing.assert_allclose(whole[1, :11], dirty[0, :11], atol=1e-5)


def test_posteriors_are_distributions_that_ignore_level_and_microphone(network):
    posteriors, params, mel = network
    found = posteriors(params, mel, np.array([30, 21]))
    np.testing.assert_allclose(np.exp(found).sum(axis=-1), 1, rtol=1e-5)
    microphone = np.linspace(1, 3, 80, dtype=np.float32)[None, None]
    louder = posteriors(params, mel + microphone, np.array([30, 21]))
    np.testing.assert_allclose(found[0], louder[0], atol=1e-4)


def test_gradients_reach_every_real_frame_and_no_padding(network):
    posteriors, params, mel = network

    def first_phone(x):
        return posteriors(params, x, jnp.array([30, 21]))[1, :11, 1].sum()

    gradient = np.abs(jax.jit(jax.grad(first_phone))(mel)).sum(axis=2)
    assert (gradient[1, :21] > 0).all() and not gradient[1, 21:].any() and not gradient[0].any()


def test_cosines_are_scipys_and_smooth_the_spectrum():
    from scipy.fft import dct

    x = np.random.default_rng(0).normal(size=(5, 80))
    np.testing.assert_allclose(x @ cosines(80, 12), dct(x, norm="ortho")[:, :12], atol=1e-5)


def make_batch(phones, durations, n_frames):
    """Utterances of silence, phones, silence, whose mels and voices do not matter."""
    rows, count = np.shape(phones)
    empty = np.zeros((rows, count), np.float32)
    return SpeechBatch(
        mel=np.zeros((rows, max(n_frames), 80)),
        n_frames=np.array(n_frames),
        phones=np.array(phones),
        n_phones=np.full(rows, count),
        durations=np.array(durations),
        pitch=empty,
        energy=empty,
        intensity=empty,
        speaker=np.zeros(rows),
        accent=np.zeros(rows),
        words=np.where(np.array(phones) == 40, -1, 0),
        weights=np.ones(rows),
    )


def test_frames_belong_to_the_phone_that_has_most_of_them():
    batch = make_batch([[40, 7, 40]], [[1, 4, 3]], [8])
    targets, known = frame_targets(batch, 5)
    assert targets[0, 1:4].tolist() == [7, 7, 40] and known[0].tolist() == [1, 1, 1, 1, 0]
    unknown = batch._replace(durations=np.zeros((1, 3), int))
    assert not np.asarray(frame_targets(unknown, 5)[1]).any()


def test_the_recogniser_aligns_what_came_without_an_alignment_when_it_is_time():
    """Row 0 has one, rows 1 and 2 have none; row 2 has more phones than frames."""
    nothing = [0, 0, 0]
    batch = make_batch([[40, 7, 40]] * 3, [[1, 4, 3], nothing, nothing], [8, 8, 4])
    heard = [40, 7, 7, 7]  # of each posterior frame, which is two of the mel
    posteriors = jnp.log(jnp.full((3, 4, 41), 1e-3).at[:, jnp.arange(4), jnp.array(heard)].set(0.9))
    before = self_aligned(posteriors, batch, jnp.array(False)).durations
    assert before.tolist() == [[1, 4, 3], nothing, nothing]
    after = self_aligned(posteriors, batch, jnp.array(True)).durations
    assert after.tolist() == [[1, 4, 3], [2, 4, 2], nothing]


def test_other_workdirs_are_no_recognisers(tmp_path):
    with pytest.raises(UserError, match="is no workdir of a recogniser; train one with"):
        load_recogniser(tmp_path)

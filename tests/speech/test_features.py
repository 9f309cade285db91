"""Frames, mel bands, energy and pitch."""

import librosa
import numpy as np
import pytest

from mmer_jax.speech import features


@pytest.fixture
def audio():
    rng = np.random.default_rng(0)
    return (0.1 * rng.normal(size=9001)).astype(np.float32)


def test_magnitudes_are_librosas(audio):
    expected = np.abs(librosa.stft(audio, n_fft=1024, hop_length=256, pad_mode="reflect")).T
    found = features.magnitudes(audio)
    assert len(found) == features.n_frames(len(audio)) == 36
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_log_mel_has_80_bands_and_a_floor():
    found = features.log_mel(features.magnitudes(np.zeros(4000, np.float32)))
    assert found.shape == (16, 80)
    np.testing.assert_allclose(found, np.log(1e-5), rtol=1e-6)


def test_log_mel_does_not_depend_on_the_order_of_sums():
    """Nor then on the number of threads, and a workdir knows its corpus on every machine."""
    spectrum = np.random.default_rng(0).gamma(1.0, 0.01, (300, 513)).astype(np.float32)
    backwards = spectrum[:, ::-1].astype(float) @ features.mel_basis()[:, ::-1].T.astype(float)
    expected = np.log(backwards).astype(np.float32)
    np.testing.assert_array_equal(features.log_mel(spectrum), expected)


def test_energy_grows_with_the_level(audio):
    quiet, loud = (features.log_energy(features.magnitudes(x)) for x in (audio, 2 * audio))
    np.testing.assert_allclose(loud - quiet, np.log(2), rtol=1e-4)


def test_pitch_of_a_voice_is_its_fundamental():
    time = np.arange(16000) / 16000
    voice = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 9)) * (time > 0.5)
    log_f0, voiced = features.pitch(0.1 * voice.astype(np.float32))
    assert len(log_f0) == len(voiced) == features.n_frames(16000)
    assert not voiced[:25].any() and voiced[36:60].all()
    np.testing.assert_allclose(np.exp(log_f0[36:60]), 150, rtol=0.01)
    assert np.isfinite(log_f0).all()


def test_noise_without_a_voice_has_a_pitch_all_the_same(audio):
    log_f0, _ = features.pitch(np.zeros(4000, np.float32))
    np.testing.assert_allclose(np.exp(log_f0), 100, rtol=1e-5)


def test_audio_shorter_than_a_window_has_frames():
    assert features.magnitudes(np.ones(100, np.float32)).shape == (1, 513)

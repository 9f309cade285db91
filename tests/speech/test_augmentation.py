"""Variations of training spectra: off means off, noise only adds."""

import jax
import numpy as np

from mmer_jax.speech.augmentation import masked, vary, warped, with_noise

KEY = jax.random.key(0)
REAL = np.ones((6, 30), bool)
MEL = np.random.default_rng(0).normal(-5, 2, (6, 30, 80)).astype(np.float32)


def test_off_is_off():
    np.testing.assert_allclose(vary(KEY, MEL, REAL, warp=0.0, noise=0.0), MEL, atol=1e-6)
    np.testing.assert_array_equal(masked(KEY, MEL, REAL, 0, 0), MEL)


def test_warping_moves_bands_by_up_to_its_share():
    ramp = np.broadcast_to(np.arange(80, dtype=np.float32), (6, 30, 80))
    found = np.asarray(warped(KEY, ramp, 0.1))
    factor = found[:, 0, 40] / 40
    assert (np.abs(factor - 1) <= 0.1).all() and len(set(factor.tolist())) == 6
    expected = np.minimum(factor[:, None] * np.arange(80), 79)
    np.testing.assert_allclose(found[:, 7], expected, rtol=1e-4)


def test_noise_adds_power_to_a_share_of_the_rows():
    rows = np.repeat(MEL[:1], 400, axis=0)
    found = np.asarray(with_noise(KEY, rows, np.ones((400, 30), bool), 0.3))
    assert (found >= rows - 1e-5).all()
    share = (found != rows).any(axis=(1, 2)).mean()
    assert 0.2 < share < 0.4


def test_masks_hide_at_most_what_they_may():
    found = masked(jax.random.key(3), MEL, REAL, bands=16, frames=12)
    changed = np.asarray(found != MEL)
    bands, frames = changed.all(axis=1).sum(axis=1), changed.all(axis=2).sum(axis=1)
    assert (bands <= 16).all() and (frames <= 12).all() and bands.any() and frames.any()


def test_noise_is_as_loud_as_the_speech_allows_whatever_the_padding_holds():
    quiet = MEL - 20
    real = np.arange(30)[None] < np.full((6, 1), 20)
    padded = np.where(real[..., None], quiet, np.float32(0))
    found = np.asarray(with_noise(KEY, padded, real, 1.0))
    assert (found[:, :20].max(axis=(1, 2)) < quiet[:, :20].max(axis=(1, 2)) + 2).all()
    hidden = np.asarray(masked(jax.random.key(3), padded, real, bands=16, frames=0))
    filled = np.asarray(hidden != padded)[:, :20]
    assert filled.any() and (hidden[:, :20][filled] < -20).all()

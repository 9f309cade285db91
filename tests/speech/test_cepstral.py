"""Mel-cepstral distortion: what it does not see, and a plain dynamic programme."""

import numpy as np
import pytest

from mmer_jax.speech.cepstral import cepstra, distortion


@pytest.fixture
def mel():
    return np.random.default_rng(0).normal(size=(12, 80))


def test_no_distortion_of_itself_slower_or_louder(mel):
    assert distortion(mel, mel) == pytest.approx(0.0, abs=1e-9)
    assert distortion(np.repeat(mel, 2, axis=0), mel) == pytest.approx(0.0, abs=1e-9)
    assert distortion(mel + 3.0, mel) == pytest.approx(0.0, abs=1e-9)


def test_cepstra_are_those_of_a_cosine():
    band = (np.arange(80) + 0.5) / 80
    found = cepstra((0.7 * np.cos(3 * np.pi * band))[None], order=5)
    np.testing.assert_allclose(found, [[0, 0, 0.7, 0, 0]], atol=1e-12)


def test_a_ripple_has_its_size_in_decibels():
    """Log magnitudes that differ by a cosine of amplitude a: √(mean of its square) in dB, a/√2."""
    band = (np.arange(80) + 0.5) / 80
    ripple = 0.5 * np.cos(4 * np.pi * band)[None].repeat(6, axis=0)
    in_decibels = 20 / np.log(10) * np.sqrt(np.mean(ripple**2))
    assert distortion(ripple, np.zeros((6, 80))) == pytest.approx(in_decibels, rel=1e-6)


def test_path_is_the_cheapest(mel):
    other = np.random.default_rng(1).normal(size=(9, 80))
    ours, theirs = cepstra(mel), cepstra(other)
    cost = np.linalg.norm(ours[:, None] - theirs[None], axis=2)
    best = {(0, 0): (cost[0, 0], 1)}
    for i in range(12):
        for j in range(9):
            before = [best[p] for p in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if p in best]
            if before:
                total, length = min(before)
                best[i, j] = total + cost[i, j], length + 1
    total, length = best[11, 8]
    expected = 10 / np.log(10) * np.sqrt(2) * total / length
    assert distortion(mel, other) == pytest.approx(expected, rel=1e-9)

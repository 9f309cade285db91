"""The length regulator: every frame belongs to the phone that a plain loop says."""

import jax
import jax.numpy as jnp
import numpy as np

from mmer_jax.speech.length import cut, frames_of, whole_frames

DURATIONS = jnp.array([[2, 3, 1, 0], [4, 1, 2, 3]])


def test_frames_repeat_their_phones():
    values = jnp.arange(8.0).reshape(2, 4, 1)
    frames = jax.jit(frames_of, static_argnums=1)(DURATIONS, 8)
    found = np.asarray(frames.spread(values))[..., 0]
    for row, of in enumerate(DURATIONS):
        expected = np.repeat(np.arange(4.0) + 4 * row, of)[:8]
        np.testing.assert_array_equal(found[row, : len(expected)], expected)
        np.testing.assert_array_equal(found[row, len(expected) :], 0.0)
    assert frames.valid.sum(axis=1).tolist() == [6, 8]


def test_progress_runs_through_each_phone():
    frames = frames_of(DURATIONS, 6)
    np.testing.assert_allclose(frames.progress[0], [1 / 4, 3 / 4, 1 / 6, 1 / 2, 5 / 6, 1 / 2])
    np.testing.assert_array_equal(frames.duration[0], [2, 2, 3, 3, 3, 1])


def test_gradients_gather_at_the_phones():
    gradient = jax.grad(lambda x: frames_of(DURATIONS, 8).spread(x).sum())(jnp.ones((2, 4, 1)))
    np.testing.assert_array_equal(gradient[..., 0], [[2, 3, 1, 0], [4, 1, 2, 1]])


def test_cut_drops_what_does_not_fit():
    np.testing.assert_array_equal(cut(DURATIONS, 5), [[2, 3, 0, 0], [4, 1, 0, 0]])
    np.testing.assert_array_equal(cut(DURATIONS, 20), DURATIONS)


def test_predicted_durations_are_whole_and_bounded():
    logs = jnp.log(jnp.array([[0.1, 2.6, 1e9, 5.0]]))
    phones = jnp.array([[3, 4, 5, 0]])
    np.testing.assert_array_equal(whole_frames(logs, phones), [[2, 3, 100, 0]])

"""Decoding against the sum over all paths, and the edit distance against its recursion."""

import functools
import itertools

import numpy as np
import pytest

from mmer_jax.speech import ctc
from mmer_jax.speech.phones import SIL


def collapsed(path):
    merged = [s for s, _ in itertools.groupby(path)]
    return tuple(s for s in merged if s != 0)


def likeliest(posteriors):
    """The sequence with the highest sum over all paths."""
    total = {}
    for path in itertools.product(range(posteriors.shape[1]), repeat=len(posteriors)):
        p = np.exp(posteriors[np.arange(len(path)), path].sum())
        total[collapsed(path)] = total.get(collapsed(path), 0.0) + p
    return list(max(total, key=total.get))


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_finds_the_likeliest_sequence(seed):
    logits = np.random.default_rng(seed).normal(0, 1.5, (5, 4))
    posteriors = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert ctc.beam(posteriors, 5, width=200) == likeliest(posteriors)


def test_beam_adds_up_paths_where_greedy_does_not():
    """Blank is best in each frame, but the paths that spell the 1 together are likelier."""
    posteriors = np.log(np.array([[0.55, 0.45], [0.55, 0.45]]))
    assert ctc.greedy(posteriors, 2) == []
    assert ctc.beam(posteriors, 2) == [1]


def test_greedy_merges_repetitions_and_stops_at_the_last_frame():
    best = [3, 3, 0, 3, 1, 1, 2]
    posteriors = np.where(np.eye(4)[best] > 0, -0.1, -5.0)
    assert ctc.greedy(posteriors, 6) == [3, 3, 1]


def test_edit_distance_is_levenshteins():
    @functools.cache
    def slow(a, b):
        if not a or not b:
            return len(a) + len(b)
        return min(slow(a[1:], b[1:]) + (a[0] != b[0]), slow(a[1:], b) + 1, slow(a, b[1:]) + 1)

    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = (tuple(rng.integers(0, 4, rng.integers(0, 7)).tolist()) for _ in range(2))
        assert ctc.edit_distance(a, b) == slow(a, b)


def test_error_rate_counts_phones_of_the_references_without_silence():
    assert ctc.phone_error_rate([[SIL, 1, 2, SIL], [5]], [[1, 3], [SIL, 5, 6]]) == 2 / 4

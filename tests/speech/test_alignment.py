"""Forced alignment against an exhaustive search and a plain NumPy Viterbi."""

import itertools

import numpy as np
import pytest

from mmer_jax.speech.alignment import align, durations_of

BLANK = 0


def random_posteriors(rng, *shape):
    logits = rng.normal(0, 2, shape)
    return (logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))).astype(np.float32)


def every_alignment(n_frames, n_phones, blanks):
    """(starts, ends) of all divisions of the frames among the phones."""
    for edges in itertools.combinations_with_replacement(range(n_frames + 1), 2 * n_phones):
        starts, ends = edges[::2], edges[1::2]
        filled = all(e > s for s, e in zip(starts, ends, strict=True))
        whole = (0, *ends) == (*starts, n_frames)
        if filled and (blanks or whole):
            yield starts, ends


def score_of(log_posteriors, phones, starts, ends):
    owner = np.full(len(log_posteriors), BLANK)
    for phone, start, end in zip(phones, starts, ends, strict=True):
        owner[start:end] = phone
    return log_posteriors[np.arange(len(owner)), owner].sum()


def viterbi(log_posteriors, phones, blanks):
    """(score, starts, ends) by dynamic programming over states, with explicit loops."""
    states = [BLANK]
    for phone in phones:
        states += [phone, BLANK]
    best = np.full((len(log_posteriors), len(states)), -np.inf)
    came = np.zeros(best.shape, int)
    for t, frame in enumerate(log_posteriors):
        for s, symbol in enumerate(states):
            if s % 2 == 0 and not blanks:
                continue
            before = [s, s - 1] + ([s - 2] if s % 2 else [])
            if t == 0:
                best[t, s] = frame[symbol] if s < 2 else -np.inf
                continue
            before = [b for b in before if b >= 0]
            came[t, s] = max(before, key=lambda b: best[t - 1, b])
            best[t, s] = best[t - 1, came[t, s]] + frame[symbol]
    state = max((len(states) - 2, len(states) - 1), key=lambda s: best[-1, s])
    score, path = best[-1, state], []
    for t in reversed(range(len(log_posteriors))):
        path.append(state)
        state = came[t, state]
    path = np.array(path[::-1])
    places = [np.flatnonzero(path == 2 * i + 1) for i in range(len(phones))]
    return score, [p[0] for p in places], [p[-1] + 1 for p in places]


@pytest.mark.parametrize("blanks", [True, False])
def test_alignment_matches_an_exhaustive_search(blanks):
    rng = np.random.default_rng(0)
    for n_frames, phones in ((3, [2]), (4, [1, 2]), (6, [3, 3]), (6, [1, 2, 1]), (5, [1, 1, 2])):
        posteriors = random_posteriors(rng, n_frames, 4)
        candidates = list(every_alignment(n_frames, len(phones), blanks))
        scores = [score_of(posteriors, phones, *candidate) for candidate in candidates]
        starts, ends = candidates[int(np.argmax(scores))]
        found = align(
            posteriors[None],
            np.array([n_frames]),
            np.array([phones]),
            np.array([len(phones)]),
            blanks=blanks,
        )
        np.testing.assert_allclose(found.score[0], max(scores), rtol=1e-6)
        assert tuple(found.starts[0].tolist()) == starts
        assert tuple(found.ends[0].tolist()) == ends


@pytest.mark.parametrize("blanks", [True, False])
def test_a_padded_batch_matches_numpy_row_by_row(blanks):
    rng = np.random.default_rng(1)
    n_frames, n_phones = np.array([40, 25, 31]), np.array([7, 3, 12])
    posteriors = random_posteriors(rng, 3, 40, 41)
    phones = rng.integers(1, 41, (3, 12))
    found = align(posteriors, n_frames, phones, n_phones, blanks=blanks)
    assert found.feasible.all()
    for row, (frames, count) in enumerate(zip(n_frames, n_phones, strict=True)):
        score, starts, ends = viterbi(
            posteriors[row, :frames].astype(float), phones[row, :count], blanks
        )
        np.testing.assert_allclose(found.score[row], score, rtol=1e-6)
        assert found.starts[row].tolist() == starts + [0] * (12 - count)
        assert found.ends[row].tolist() == ends + [0] * (12 - count)


def test_more_phones_than_frames_is_told():
    posteriors = random_posteriors(np.random.default_rng(2), 2, 4, 5)
    found = align(posteriors, np.array([4, 2]), np.full((2, 3), 1), np.array([3, 3]))
    assert found.feasible.tolist() == [True, False]
    assert not found.ends[1].any()


def test_durations_add_up_to_the_frames():
    rng = np.random.default_rng(3)
    n_frames, n_phones = np.array([21, 30]), np.array([4, 6])
    posteriors = random_posteriors(rng, 2, 15, 6)
    phones = rng.integers(1, 6, (2, 6))
    for blanks in (True, False):
        found = align(posteriors, -(-n_frames // 2), phones, n_phones, blanks=blanks)
        durations = np.asarray(durations_of(found, n_frames, n_phones, 2))
        assert durations.sum(axis=1).tolist() == n_frames.tolist()
        assert (durations[0, :4] > 0).all() and not durations[0, 4:].any()

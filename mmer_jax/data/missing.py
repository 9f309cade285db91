"""Which modalities are available: fixed patterns, and masks at a missing rate.

A mask is a pure function of (seed, draw, split, utterance id) and the rate: batch order, method,
fold and what else is scored do not enter. The same random numbers serve all rates, so what is
missing at a low rate is missing at a higher one too, and curves differ by the rate alone.
"""

import hashlib
import itertools
from collections.abc import Sequence

import numpy as np


def missing_patterns(n_modalities: int) -> np.ndarray:
    """[2^M - 2, M] bool: every non-empty proper subset, single modalities first.

    With three modalities a, t, v: a, t, v, at, av, tv.
    """
    patterns = [
        [m in subset for m in range(n_modalities)]
        for size in range(1, n_modalities)
        for subset in itertools.combinations(range(n_modalities), size)
    ]
    return np.array(patterns, bool)


def full_pattern(n_modalities: int) -> np.ndarray:
    """[1, M] bool, everything available."""
    return np.ones((1, n_modalities), bool)


def condition_name(pattern: np.ndarray, names: Sequence[str]) -> str:
    """The available modalities in config order joined by '+', as in results.csv."""
    return "+".join(name for name, there in zip(names, pattern, strict=True) if there)


def training_patterns(training: str, names: Sequence[str]) -> np.ndarray:
    """[K, M]: the pattern that `train.patterns` names, such as "audio+text", or all of them."""
    patterns = missing_patterns(len(names))
    named = [training == condition_name(pattern, names) for pattern in patterns]
    return patterns[named] if any(named) else patterns


# ---- missing rates ----


def drop_probabilities(rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How to miss modality m at rate r_m while one modality is always kept.

    One modality is kept, m with probability p_m; each other one is then dropped with q_m. With
    p_m proportional to 1 - r_m, (1 - p_m) q_m = r_m: every slot is missing at its nominal rate, as
    far as that leaves one (Σ(1 - r_m) ≥ 1; three modalities reach 2/3, whatever is asked for).

    Args:
      rates: [M], each in [0, 1].

    Returns:
      ([M] p, [M] q).
    """
    left = 1.0 - np.asarray(rates, np.float64)
    total = left.sum()
    keep = left / total if total > 0 else np.full(len(left), 1 / len(left))
    drop = np.divide(rates, 1 - keep, out=np.ones(len(left)), where=keep < 1)
    return keep, np.minimum(drop, 1.0)


def utterance_masks(
    ids: Sequence[str], rates: Sequence[float], *, seed: int, draw: int, split: str
) -> np.ndarray:
    """[N, M] bool, what each utterance has left at the missing rates [M]."""
    keep, drop = drop_probabilities(np.asarray(rates))
    slots, which = _uniform(ids, len(keep), seed, draw, split)
    kept = _kept(which, keep)
    return (slots >= drop) | kept


def dialogue_masks(
    ids: Sequence[str],
    dialogues: Sequence[str],
    n_modalities: int,
    rate: float,
    *,
    seed: int,
    draw: int,
    split: str,
) -> np.ndarray:
    """[N, M] bool in which every dialogue misses the rate itself, as closely as it can.

    Of a dialogue's L·M slots round(rate · L · M) are missing, at most L·(M - 1): each utterance
    keeps one. Independent masks vary from dialogue to dialogue; these do not.
    """
    slots, which = _uniform(ids, n_modalities, seed, draw, split)
    kept = _kept(which, np.full(n_modalities, 1 / n_modalities))
    order = np.where(kept, np.inf, slots)
    available = np.ones((len(ids), n_modalities), bool)
    for name in np.unique(dialogues):
        rows = np.flatnonzero(np.asarray(dialogues) == name)
        inside = order[rows].ravel()
        missing = min(round(rate * len(inside)), len(rows) * (n_modalities - 1))
        left = np.ones(len(inside), bool)
        left[np.argsort(inside, kind="stable")[:missing]] = False
        available[rows] = left.reshape(len(rows), n_modalities)
    return available


def _uniform(ids, n_modalities: int, seed: int, draw: int, split: str):
    """Numbers in [0, 1) from a hash: [N, M] for the slots, [N] for the choice of the kept one."""
    digests = b"".join(
        hashlib.blake2b(
            f"{seed}|{draw}|{split}|{name}".encode(), digest_size=4 * (n_modalities + 1)
        ).digest()
        for name in ids
    )
    numbers = np.frombuffer(digests, "<u4").reshape(len(ids), -1) / 2.0**32
    return numbers[:, :-1], numbers[:, -1]


def _kept(which: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """[N, M] bool, one modality of each utterance, m with probability keep[m]."""
    bounds = np.cumsum(keep)[:-1]
    return np.searchsorted(bounds, which, side="right")[:, None] == np.arange(len(keep))

"""Which modalities are available: the fixed patterns, their names and their order."""

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

"""From posteriors to phones: greedy and beam decoding of CTC, and the phone error rate."""

import math
from collections.abc import Sequence

import numpy as np

from mmer_jax.speech.phones import BLANK, SIL

CANDIDATES = 12  # symbols of a frame that a beam looks at; the others are negligible


def greedy(log_posteriors: np.ndarray, n_frames: int) -> list[int]:
    """Best symbol of each frame [G, S], repetitions merged, blanks dropped."""
    best = np.asarray(log_posteriors)[:n_frames].argmax(axis=1)
    changed = np.diff(best, prepend=-1) != 0
    return [int(symbol) for symbol in best[changed] if symbol != BLANK]


def beam(log_posteriors: np.ndarray, n_frames: int, width: int = 8) -> list[int]:
    """The likeliest sequence by prefix beam search (Hannun et al., 2014), without language model.

    Unlike `greedy` it adds up all paths that spell the same sequence.

    Args:
      log_posteriors: [G, S].
      n_frames: of them that count.
      width: prefixes that are kept.
    """
    prefixes: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -math.inf)}
    for frame in np.asarray(log_posteriors, np.float64)[:n_frames]:
        found: dict[tuple[int, ...], list[float]] = {}
        symbols = np.argsort(frame)[-CANDIDATES:].tolist()
        for prefix, (blank, sound) in prefixes.items():
            both = np.logaddexp(blank, sound)
            for symbol in {*symbols, BLANK}:
                log_p = float(frame[symbol])
                if symbol == BLANK:
                    _add(found, prefix, 0, both + log_p)
                elif prefix and symbol == prefix[-1]:
                    _add(found, prefix, 1, sound + log_p)
                    _add(found, (*prefix, symbol), 1, blank + log_p)
                else:
                    _add(found, (*prefix, symbol), 1, both + log_p)
        kept = sorted(found.items(), key=lambda item: -_total(item[1]))[:width]
        prefixes = {prefix: (scores[0], scores[1]) for prefix, scores in kept}
    return list(max(prefixes.items(), key=lambda item: _total(item[1]))[0])


def _total(scores: Sequence[float]) -> float:
    return float(np.logaddexp(scores[0], scores[1]))


def _add(found, prefix, kind: int, log_p: float) -> None:
    """Add a path to `prefix` that ends in a blank (kind 0) or in its last symbol (kind 1)."""
    scores = found.setdefault(prefix, [-math.inf, -math.inf])
    scores[kind] = float(np.logaddexp(scores[kind], log_p))


def edit_distance(a: Sequence[int], b: Sequence[int]) -> int:
    """Insertions, deletions and substitutions from `a` to `b` (Levenshtein)."""
    row = np.arange(len(b) + 1)
    for number, symbol in enumerate(a, start=1):
        changed = np.minimum(row[:-1] + (np.asarray(b) != symbol), row[1:] + 1)
        row = np.concatenate([[number], changed])
        # An insertion continues the row: the least of all places before, and the steps to here.
        places = np.arange(len(row))
        row = np.minimum.accumulate(row - places) + places
    return int(row[-1])


def phone_error_rate(
    hypotheses: Sequence[Sequence[int]], references: Sequence[Sequence[int]]
) -> float:
    """Edits over all utterances, by the phones of the references; silence does not count."""
    spoken = [[p for p in symbols if p not in (BLANK, SIL)] for symbols in references]
    heard = [[p for p in symbols if p not in (BLANK, SIL)] for symbols in hypotheses]
    edits = sum(map(edit_distance, heard, spoken))
    return edits / max(1, sum(map(len, spoken)))

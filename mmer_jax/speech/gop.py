"""Goodness of pronunciation: how well each phone's frames sound like the phone.

    GoP(p) = mean_t log P(p | t) - mean_t max_q log P(q | t),   t: the frames of p, q: not the blank

(METHODS §8; Witt and Young, 2000, with posteriors in place of likelihoods). It is at most 0, and 0
where the phone is the best one in all its frames. Silences have no say in words and utterances.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mmer_jax.speech.phones import BLANK


def duration_weights(
    durations: Int[Array, "B P"], n_posterior_frames: int, stride: int
) -> Float[Array, "B P G"]:
    """How many of each phone's feature frames lie in each posterior frame.

    Args:
      durations: feature frames of phones that follow one another.
      n_posterior_frames: G.
      stride: feature frames to a posterior frame.
    """
    ends = jnp.cumsum(durations, axis=1)[..., None]
    starts = ends - durations[..., None]
    left = stride * jnp.arange(n_posterior_frames)[None, None]
    overlap = jnp.minimum(ends, left + stride) - jnp.maximum(starts, left)
    return jnp.maximum(overlap, 0).astype(jnp.float32)


def span_weights(
    starts: Int[Array, "B P"], ends: Int[Array, "B P"], n_posterior_frames: int
) -> Float[Array, "B P G"]:
    """1 in the frames of each phone, 0 elsewhere."""
    frame = jnp.arange(n_posterior_frames)[None, None]
    inside = (frame >= starts[..., None]) & (frame < ends[..., None])
    return inside.astype(jnp.float32)


def goodness(
    log_posteriors: Float[Array, "B G S"],
    phones: Int[Array, "B P"],
    weights: Float[Array, "B P G"],
) -> Float[Array, "B P"]:
    """GoP of every phone; 0 where it has no frame. Differentiable in the posteriors."""
    canonical = jnp.take_along_axis(log_posteriors, phones[:, None], axis=2)  # [B, G, P]
    is_blank = jnp.arange(log_posteriors.shape[2])[None, None] == BLANK
    best = jnp.max(jnp.where(is_blank, -jnp.inf, log_posteriors), axis=2, keepdims=True)
    total = jnp.sum(weights, axis=2)
    difference = jnp.einsum("bpg,bgp->bp", weights, canonical - best)
    return difference / jnp.maximum(total, 1e-9)


def word_means(values: np.ndarray, words: np.ndarray) -> np.ndarray:
    """[W] means of phone values [P] over each word; `words` [P] are their numbers, -1: silence."""
    inside = words >= 0
    count = int(words.max(initial=-1)) + 1
    total = np.bincount(words[inside], values[inside], count)
    return total / np.maximum(np.bincount(words[inside], minlength=count), 1)


def utterance_mean(values: np.ndarray, words: np.ndarray) -> float:
    """Mean of phone values [P]; silence does not count."""
    return float(values[words >= 0].mean())

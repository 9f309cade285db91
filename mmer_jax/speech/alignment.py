"""Forced alignment: which frames belong to which phone, by Viterbi over posteriors.

The frames are divided among the phones in their order, each at least one, so that the sum of the
log posteriors is highest. Blanks may stand before, between and after the phones. Unlike a path of
CTC, two equal phones may follow each other without a blank, because the spans tell them apart.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmer_jax.speech.phones import BLANK

VERY_NEGATIVE = -1e30  # finite, so that sums of it do not become NaN


class Alignment(NamedTuple):
    """Spans of the phones in frames of the posteriors, ends exclusive; 0 for padding."""

    starts: Int[Array, "B P"]
    ends: Int[Array, "B P"]
    score: Float[Array, " B"]  # sum of the log posteriors along the best path
    feasible: Bool[Array, " B"]  # there are as many frames as phones


def align(
    log_posteriors: Float[Array, "B G S"],
    n_frames: Int[Array, " B"],
    phones: Int[Array, "B P"],
    n_phones: Int[Array, " B"],
    *,
    blanks: bool = True,
) -> Alignment:
    """The best alignment of each utterance.

    Args:
      log_posteriors: of G frames, padded.
      n_frames, n_phones: of each utterance.
      phones: numbers of symbols.
      blanks: False: every frame belongs to a phone.
    """
    states = _with_blanks(phones)
    emitted = jnp.take_along_axis(log_posteriors, states[:, None], axis=2)  # [B, G, 2P + 1]
    if not blanks:
        emitted = jnp.where(jnp.arange(states.shape[1]) % 2 == 0, VERY_NEGATIVE, emitted)
    path, score = jax.vmap(_viterbi)(emitted, n_frames, n_phones)
    spans = path[:, None] == 2 * jnp.arange(phones.shape[1])[None, :, None] + 1  # [B, P, G]
    frame = jnp.arange(path.shape[1])
    feasible = (n_phones <= n_frames) & (n_phones > 0)
    real = (jnp.arange(phones.shape[1])[None] < n_phones[:, None]) & feasible[:, None]
    starts = jnp.argmax(spans, axis=2)
    ends = jnp.max(jnp.where(spans, frame[None, None] + 1, 0), axis=2)
    return Alignment(jnp.where(real, starts, 0), jnp.where(real, ends, 0), score, feasible)


def _with_blanks(phones: Int[Array, "B P"]) -> Int[Array, "B S"]:
    """blank, phone, blank, ..., phone, blank."""
    blanks = jnp.full_like(phones, BLANK)
    pairs = jnp.stack([blanks, phones], axis=2).reshape(phones.shape[0], -1)
    return jnp.pad(pairs, [(0, 0), (0, 1)], constant_values=BLANK)


def _viterbi(emitted: Float[Array, "G S"], n_frames, n_phones):
    """(state of every frame, score); frames of the padding have state -1."""
    n_states = emitted.shape[1]
    state = jnp.arange(n_states)
    first = jnp.where(state < 2, emitted[0], VERY_NEGATIVE)
    may_skip = state % 2 == 1  # from phone to phone, past the blank

    def forward(best, inputs):
        number, emission = inputs
        one = jnp.pad(best[:-1], (1, 0), constant_values=VERY_NEGATIVE)
        two = jnp.pad(best[:-2], (2, 0), constant_values=VERY_NEGATIVE)
        two = jnp.where(may_skip, two, VERY_NEGATIVE)
        reached = jnp.stack([best, one, two])
        step = jnp.argmax(reached, axis=0)
        inside = number < n_frames
        new = jnp.maximum(jnp.max(reached, axis=0) + emission, VERY_NEGATIVE)
        return jnp.where(inside, new, best), jnp.where(inside, step, 0)

    numbers = jnp.arange(1, emitted.shape[0])
    best, steps = jax.lax.scan(forward, first, (numbers, emitted[1:]))
    last_phone = 2 * n_phones - 1
    in_blank = best[last_phone + 1] > best[last_phone]
    last = last_phone + in_blank.astype(last_phone.dtype)

    def backward(state, step):
        return state - step[state], state

    start, rest = jax.lax.scan(backward, last, steps, reverse=True)
    path = jnp.concatenate([start[None], rest])
    return jnp.where(jnp.arange(len(path)) < n_frames, path, -1), best[last]


def durations_of(
    alignment: Alignment, n_frames: Int[Array, " B"], n_phones: Int[Array, " B"], stride: int
) -> Int[Array, "B P"]:
    """Feature frames of each phone, which add up to `n_frames`.

    A blank's frames belong to the phone before it, those before the first phone to the first.
    """
    number = jnp.arange(alignment.starts.shape[1])[None]
    starts = jnp.where(number == 0, 0, stride * alignment.starts)
    after = number >= n_phones[:, None]
    starts = jnp.where(after, n_frames[:, None], starts)
    following = jnp.concatenate([starts[:, 1:], n_frames[:, None]], axis=1)
    return following - starts

"""What an utterance is trained on beside itself (HARDY-MER; Liu et al. 2025; METHODS §6).

The nearest training utterances of every available modality, as many of them as the utterance is
hard. Lists of rows end in -1 where there is no further one; their first row is the utterance.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def union(nearest: Int[Array, "... M n"], available: Bool[Array, "... M"]) -> Int[Array, "... M*n"]:
    """The rows that the available modalities have found, modality by modality, without repeats."""
    rows = jnp.where(available[..., None], nearest, -1).reshape(*nearest.shape[:-2], -1)
    place = jnp.arange(rows.shape[-1])
    same = rows[..., :, None] == rows[..., None, :]
    repeated = jnp.any(same & _lead(place[:, None] > place[None], same.ndim), axis=-1)
    return _close_up(rows, (rows >= 0) & ~repeated)


def cut(rows: Int[Array, "... n"], hardness: Float[Array, "..."], k: int) -> Int[Array, "... n"]:
    """The first ⌊H·K + 1⌋ + 1 of the rows."""
    count = jnp.floor(hardness * k + 1).astype(jnp.int32) + 1
    place = _lead(jnp.arange(rows.shape[-1]), rows.ndim)
    return jnp.where(place < count[..., None], rows, -1)


def closest(
    rows: Int[Array, "... n"], distances: Float[Array, "... n"], k: int
) -> Int[Array, "... k+2"]:
    """The first row, and of those after it the K + 1 least distant, in the order of `rows`.

    Args:
      rows: n is at least K + 2.
      distances: of each row from the first; of equal ones the earlier row counts as closer.
    """
    others = rows[..., 1:]
    distances = jnp.where(others >= 0, distances[..., 1:], jnp.inf)
    rank = jnp.argsort(jnp.argsort(distances, axis=-1), axis=-1)
    kept = jnp.concatenate([rows[..., :1] >= 0, (others >= 0) & (rank <= k)], axis=-1)
    return _close_up(rows, kept)[..., : k + 2]


def line_up(rows: Int[Array, "... n"], k: int) -> Int[Array, "... k+1"]:
    """K + 1 rows: those of the list, after as many copies of its first as it lacks."""
    count = jnp.sum(rows >= 0, axis=-1, keepdims=True)
    place = _lead(jnp.arange(k + 1), rows.ndim) - jnp.maximum(k + 1 - count, 0)
    return jnp.take_along_axis(rows, jnp.maximum(place, 0), axis=-1)


def curriculum(
    nearest: Int[Array, "... M n"],
    available: Bool[Array, "... M"],
    hardness: Float[Array, "..."],
    k: int,
) -> Int[Array, "... k+1"]:
    """The rows that an utterance is trained on: itself, several times if it is easy, and others.

    `closest` has no part in it: a hardness below 1 leaves at most K others anyway.

    Args:
      nearest: for each modality the utterance's own row and its K nearest; n = K + 1.
      available: of each modality.
      hardness: in (0, 1).
      k: K, at least 1.
    """
    return line_up(cut(union(nearest, available), hardness, k), k)


def _close_up(rows, kept):
    """The kept rows at the front, in order, and -1 behind them."""
    order = jnp.argsort(~kept, axis=-1, stable=True)
    return jnp.take_along_axis(jnp.where(kept, rows, -1), order, axis=-1)


def _lead(x, ndim: int):
    """With axes of size 1 in front, for a strict rank promotion."""
    return x.reshape((1,) * (ndim - x.ndim) + x.shape)

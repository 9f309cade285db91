"""The order of an epoch: of all its units, or only among those that a buffer holds.

Records are read fast in the order in which they lie in their files, and a permutation of everything
is the opposite of that. With a buffer the units, in the order of their rows, are cut into blocks,
the blocks are permuted, and the buffer is filled with the next blocks and emptied in random order,
again and again. Whatever is read within one filling is then a few runs of neighbouring rows.

Blocks are parts of the corpus and not files, so that the order does not depend on where features
come from: from memory, from records, in however many shards.
"""

import numpy as np

from mmer_jax.data.units import Units

BLOCKS = 8  # in the buffer at a time: units from so many places of the corpus meet in a batch


def shuffled(units: Units, rng: np.random.Generator, buffer: int = 0) -> np.ndarray:
    """[n] indices into units [n, L], each once.

    Args:
      units: each stands where the first of its rows does.
      rng: what the order is drawn from.
      buffer: in utterances that count; 0, or one that holds all units: any order may come.
    """
    n = len(units)
    size = n if not buffer else max(1, buffer * n // max(1, int(units.counted.sum())))
    if size >= n:
        return rng.permutation(n)
    first = np.where(units.rows < 0, np.iinfo(units.rows.dtype).max, units.rows).min(axis=1)
    in_file_order = np.argsort(first, kind="stable")
    starts = np.arange(0, n, -(-size // BLOCKS))
    blocks = np.split(in_file_order, starts[1:])
    filled = np.concatenate([blocks[i] for i in rng.permutation(len(blocks))])
    return np.concatenate(
        [rng.permutation(filled[start : start + size]) for start in range(0, n, size)]
    )

"""From rows to features on the device: the whole corpus resident, or streamed piece by piece.

Both placements serve the same training program. It receives the features of R resident rows and,
for every batch, the slots among them. With a resident corpus R = N and a slot is the row itself;
when streaming, a piece holds the distinct rows of the next few steps.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Num

from mmer_jax import mesh as mesh_lib
from mmer_jax.data.corpus import Corpus


class Resident(NamedTuple):
    """R rows on the device, features in their stored dtypes."""

    features: dict[str, Float[Array, "R ..."]]
    lengths: dict[str, Int[Array, " R"]]
    present: Bool[Array, "R M"]
    labels: Num[Array, " R"]


class Piece(NamedTuple):
    """Some consecutive steps: what is resident, and [S, T, B] slots and rows (-1: no utterance)."""

    resident: Resident
    slots: Int[Array, "S T B"]
    rows: Int[Array, "S T B"]


class Feed:
    """Serves pieces of a corpus to a mesh.

    Args:
      corpus: where rows come from.
      mesh: features are replicated on it, slots and rows are divided.
      placement: "device", "stream", or "auto" by `memory_budget` (bytes of features on a device).
    """

    def __init__(self, corpus: Corpus, mesh: Mesh, *, placement: str, memory_budget: float):
        self._corpus = corpus
        self._mesh = mesh
        self._budget = memory_budget
        if placement == "auto":
            fits = len(corpus) * corpus.row_bytes <= memory_budget
            placement = "device" if fits else "stream"
        self.placement = placement
        rows = np.arange(len(corpus))
        self._whole = self._put(rows, corpus.read(rows)) if placement == "device" else None

    def pieces(self, rows: np.ndarray) -> Iterator[Piece]:
        """The steps of `rows` [S, T, B] in order, as one piece or as pieces of equal shape."""
        if self._whole is not None:
            placed = jax.device_put(rows, mesh_lib.by_batch(self._mesh))
            yield Piece(self._whole, placed, placed)
            return
        steps = self._steps_per_piece(rows)
        tables = [_pad_steps(rows[i : i + steps], steps) for i in range(0, len(rows), steps)]
        wanted = (_distinct(table, table.size) for table in tables)
        wanted, ahead = itertools.tee(wanted)
        for table, distinct, features in zip(
            tables, wanted, self._corpus.stream(ahead), strict=True
        ):
            slots = np.searchsorted(distinct, table).astype(np.int32)
            slots = np.where(table < 0, -1, slots).astype(np.int32)
            placed = jax.device_put((slots, table), mesh_lib.by_batch(self._mesh))
            yield Piece(self._put(distinct, features), *placed)

    def _steps_per_piece(self, rows: np.ndarray) -> int:
        """As many steps as half the budget holds (the other half is the piece in flight)."""
        step_bytes = rows[0].size * self._corpus.row_bytes
        return int(np.clip(self._budget / 2 // step_bytes, 1, len(rows)))

    def _put(self, rows: np.ndarray, features) -> Resident:
        resident = Resident(
            features=features,
            lengths={name: lengths[rows] for name, lengths in self._corpus.lengths.items()},
            present=self._corpus.present[rows],
            labels=self._corpus.labels[rows],
        )
        return jax.device_put(resident, mesh_lib.replicated(self._mesh))


def _pad_steps(table: np.ndarray, steps: int) -> np.ndarray:
    """Empty steps at the end, so that every piece has one shape and one compiled program."""
    padding = np.full((steps - len(table), *table.shape[1:]), -1, table.dtype)
    return np.concatenate([table, padding])


def _distinct(table: np.ndarray, size: int) -> np.ndarray:
    """The sorted distinct rows of a table, its last one repeated up to a fixed `size`."""
    distinct = np.unique(table[table >= 0])
    if not len(distinct):
        distinct = np.zeros(1, table.dtype)
    return np.concatenate([distinct, np.full(size - len(distinct), distinct[-1])])

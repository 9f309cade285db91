"""From rows to features on the device: the whole corpus resident, or streamed piece by piece.

Both placements serve the same training program. It receives the features of R resident rows and,
for every batch, the slots among them. With a resident corpus R = N and a slot is the row itself;
when streaming, a piece holds the distinct rows of the next few steps. While a piece is trained on,
a thread reads the next one and puts it on the device.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Num

from mmer_jax import mesh as mesh_lib
from mmer_jax.data.ahead import read_ahead
from mmer_jax.data.corpus import Corpus
from mmer_jax.data.exchange import Exchange
from mmer_jax.data.units import Units, empty

# Steps of a piece: there are two pieces at least, since the first is waited for and the others are
# not. A call of the program costs what it takes to get memory for its temporaries.
FEWEST, MOST = 5, 20
CALL = 0.5  # in steps, at the original sizes on a CPU


class Resident(NamedTuple):
    """R rows on the device, features in their stored dtypes."""

    features: dict[str, Float[Array, "R ..."]]
    lengths: dict[str, Int[Array, " R"]]
    present: Bool[Array, "R M"]
    labels: Num[Array, "R tasks"]
    speakers: Int[Array, " R"] | None = None


class Piece(NamedTuple):
    """Some consecutive steps: what is resident, and of S steps the slots and rows of T trials.

    A batch is U units of L rows (data/units.py).
    """

    resident: Resident
    slots: Int[Array, "S T U L"]  # -1: no utterance
    rows: Int[Array, "S T U L"]
    counted: Bool[Array, "S T U L"]


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
        # Processes read their own shards; one process alone reads all it needs by itself.
        self._exchange = Exchange(corpus, mesh) if jax.process_count() > 1 else None
        rows = np.arange(len(corpus))
        self._whole = None
        if placement == "device":
            (features,) = self._features([rows])
            self._whole = self._resident(rows, self._arrived(features))

    def pieces(self, units: Units) -> Iterator[Piece]:
        """The steps of `units` [S, T, U, L] in order, as one piece or as pieces of equal shape.

        Wait for the results of a piece before taking the next: one more is on the device already.
        """
        if self._whole is not None:
            rows, counted = mesh_lib.put(tuple(units), mesh_lib.by_batch(self._mesh))
            yield Piece(self._whole, rows, rows, counted)
            return
        steps = self._steps_per_piece(units.rows)
        tables = [_steps(units, i, steps) for i in range(0, len(units), steps)]
        wanted = [np.unique(table.rows[table.rows >= 0]) for table in tables]
        size = max(1, *map(len, wanted))
        # Pieces share one compiled program: rows that no slot asks for make them equally large.
        filled = [np.pad(rows, (0, size - len(rows))) for rows in wanted]
        coming = read_ahead(self._features(filled))
        for table, distinct, rows, features in zip(tables, wanted, filled, coming, strict=True):
            slots = np.searchsorted(distinct, table.rows)
            slots = np.where(table.rows < 0, -1, slots).astype(np.int32)
            placed = mesh_lib.put((slots, *table), mesh_lib.by_batch(self._mesh))
            yield Piece(self._resident(rows, self._arrived(features)), *placed)

    def _features(self, tables: Sequence[np.ndarray]) -> Generator[Any, None, None]:
        """Features of each of `tables`, rows [R], on the devices, or on their way (`_arrived`)."""
        exchange = self._exchange
        if exchange is None:
            for features in self._corpus.stream(tables):
                yield mesh_lib.put(features, mesh_lib.replicated(self._mesh))
            return
        block, mine = exchange.block(tables), [exchange.mine(rows) for rows in tables]
        for rows, features in zip(tables, self._corpus.stream(mine), strict=True):
            yield exchange.lay_out(rows, features, block)

    def _arrived(self, features) -> dict[str, Array]:
        """Not by the thread that reads ahead: processes must exchange in one order."""
        return features if self._exchange is None else self._exchange.everywhere(features)

    def _steps_per_piece(self, rows: np.ndarray) -> int:
        """What takes the least time, steps without utterances at the end included.

        At most what half the budget holds (the other half is the piece in flight).
        """
        capacity = self._budget / 2 // self._corpus.row_bytes
        fitting = MOST if capacity >= len(self._corpus) else capacity // rows[0].size
        most = int(np.clip(fitting, 1, min(MOST, -(-len(rows) // 2))))
        choices = range(min(FEWEST, most), most + 1)
        return min(choices, key=lambda steps: -(-len(rows) // steps) * (steps + CALL))

    def _resident(self, rows: np.ndarray, features: dict[str, Array]) -> Resident:
        """Rows [R] whose features are on the device."""
        resident = Resident(
            features={},
            lengths={name: lengths[rows] for name, lengths in self._corpus.lengths.items()},
            present=self._corpus.present[rows],
            labels=self._corpus.labels[rows],
            speakers=None if self._corpus.speakers is None else self._corpus.speakers[rows],
        )
        placed = mesh_lib.put(resident, mesh_lib.replicated(self._mesh))
        return placed._replace(features=features)


def _steps(units: Units, start: int, count: int) -> Units:
    """`count` steps from `start` on, empty ones at the end: pieces have one shape and program."""
    part = Units(*(x[start : start + count] for x in units))
    missing = empty(count - len(part), *part.rows.shape[1:])
    return Units(*(np.concatenate(both) for both in zip(part, missing, strict=True)))

"""Each process of a run reads the rows of its own shards; the mesh carries them to the others."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Num

from mmer_jax import mesh as mesh_lib
from mmer_jax.data.corpus import Corpus, Features


class Blocks(NamedTuple):
    """Features that lie where they were read, and where each row is among them."""

    features: dict[str, Num[Array, "D·block ..."]]
    source: np.ndarray  # [R]


class Exchange:
    """Who reads which rows, and how they come to every device.

    Args:
      corpus: whose source says which rows are whose.
      mesh: over the devices of all processes.
    """

    def __init__(self, corpus: Corpus, mesh: Mesh):
        self._mesh = mesh
        self._devices = [device.process_index for device in mesh.devices.flat]
        self._owner = np.zeros(len(corpus), np.int32)
        for process in range(jax.process_count()):
            rows = corpus.source.rows_of_process(process, jax.process_count())
            self._owner[rows] = process
        # The rows of a process are divided among its devices, in turn.
        self._blocks = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._spread = jax.jit(
            lambda blocks, source: blocks[source], out_shardings=mesh_lib.replicated(mesh)
        )

    def mine(self, rows: np.ndarray) -> np.ndarray:
        """Those of `rows` that this process reads."""
        return rows[self._owner[rows] == jax.process_index()]

    def block(self, tables: Sequence[np.ndarray]) -> int:
        """Rows of a device, at most, where each of `tables` is exchanged: one shape for all."""
        return max(len(part) for rows in tables for part in self._parts(rows))

    def lay_out(self, rows: np.ndarray, features: Features, block: int) -> Blocks:
        """What this process has read, on its devices; speaks to no other process.

        Args:
          rows: [R], the same in every process.
          features: of `mine(rows)`.
          block: as of `block`, for these rows or more.
        """
        parts, mine = self._parts(rows), self.mine(rows)
        source = np.zeros(len(self._owner), np.int32)  # of a row: its place in the blocks
        for device, part in enumerate(parts):
            source[part] = device * block + np.arange(len(part))
        at = np.zeros(len(self._owner), np.int32)  # of a row: its place in `features`
        at[mine] = np.arange(len(mine))
        blocks = {name: self._laid_out(x, parts, at, block) for name, x in features.items()}
        return Blocks(blocks, source[rows])

    def everywhere(self, blocks: Blocks) -> dict[str, Num[Array, "R ..."]]:
        """The rows on every device. All processes must come here in the same order."""
        return {name: self._spread(x, blocks.source) for name, x in blocks.features.items()}

    def _parts(self, rows: np.ndarray) -> list[np.ndarray]:
        """The rows of each device of the mesh."""
        parts: list[np.ndarray] = [rows[:0]] * len(self._devices)
        for process in set(self._devices):
            mine = [k for k, owner in enumerate(self._devices) if owner == process]
            shares = np.array_split(rows[self._owner[rows] == process], len(mine))
            for k, share in zip(mine, shares, strict=True):
                parts[k] = share
        return parts

    def _laid_out(self, x: np.ndarray, parts, at: np.ndarray, block: int) -> jax.Array:
        """[devices · block, ...], each process giving the blocks of its own devices."""

        def of_device(where):
            part = parts[(where[0].start or 0) // block]
            return np.pad(x[at[part]], [(0, block - len(part))] + [(0, 0)] * (x.ndim - 1))

        shape = (len(self._devices) * block, *x.shape[1:])
        return jax.make_array_from_callback(shape, self._blocks, of_device)

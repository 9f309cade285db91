"""Each process of a run reads the rows of its own shards; the mesh carries them to the others."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Num

from mmer_jax import mesh as mesh_lib
from mmer_jax.data.corpus import Corpus, Features


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
        self._spread = jax.jit(_spread, out_shardings=mesh_lib.replicated(mesh))

    def mine(self, rows: np.ndarray) -> np.ndarray:
        """Those of `rows` that this process reads."""
        return rows[self._owner[rows] == jax.process_index()]

    def block(self, tables: Sequence[np.ndarray]) -> int:
        """Rows of a device, at most, where each of `tables` is exchanged: one shape for all."""
        return max(len(part) for rows in tables for part in self._parts(rows))

    def everywhere(
        self, rows: np.ndarray, features: Features, block: int, size: int
    ) -> dict[str, Num[Array, "size ..."]]:
        """Features of `rows` on every device, zeros from there up to `size`.

        Args:
          rows: the same in every process.
          features: of `mine(rows)`.
          block: as of `block`, for these rows or more.
        """
        parts = self._parts(rows)
        place = np.zeros(len(self._owner), np.int32)
        for device, part in enumerate(parts):
            place[part] = device * block + np.arange(len(part))
        source = np.zeros(size, np.int32)
        source[: len(rows)] = place[rows]
        at = np.zeros(len(self._owner), np.int32)  # in `features`
        at[self.mine(rows)] = np.arange(len(self.mine(rows)))
        return {
            name: self._spread(self._laid_out(x, parts, at, block), source, len(rows))
            for name, x in features.items()
        }

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


def _spread(blocks, source, count):
    taken = blocks[source]
    real = (jnp.arange(len(source)) < count).reshape(-1, *[1] * (taken.ndim - 1))
    return jnp.where(real, taken, jnp.zeros_like(taken))

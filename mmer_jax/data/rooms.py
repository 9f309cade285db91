"""Memory for features that are read piece by piece, used again when nobody looks at it any more.

A new array of hundreds of megabytes costs as much in page faults as what is then read into it. A
room comes back by itself, when the last array in it has died. That is safe whatever JAX does with
an array that is put on a device: where it copies it lets go of it after the copy, and on a CPU,
where it does not copy but computes with the memory itself, after the last computation.
"""

import math
from collections import deque
from collections.abc import Mapping

import numpy as np

KEPT = 3  # free rooms: a piece is trained on, the next one waits, another is being read
ALIGNMENT = 64  # bytes; XLA copies what is aligned to less


class Rooms:
    """Rooms of the size last asked for; at most `KEPT` are kept free. Threads may share them."""

    def __init__(self) -> None:
        self._free: deque[np.ndarray] = deque(maxlen=KEPT)

    def arrays(
        self, layout: Mapping[str, tuple[tuple[int, ...], np.dtype]]
    ) -> dict[str, np.ndarray]:
        """Arrays of the (shape, dtype) of each name in one room; their content is not defined."""
        sizes = [_aligned(math.prod(shape) * dtype.itemsize) for shape, dtype in layout.values()]
        lent = np.asarray(_Lease(self._take(sum(sizes)), self._free))
        found, start = {}, -lent.ctypes.data % ALIGNMENT
        for (name, (shape, dtype)), size in zip(layout.items(), sizes, strict=True):
            end = start + math.prod(shape) * dtype.itemsize
            found[name] = lent[start:end].view(dtype).reshape(shape)
            start += size
        return found

    def _take(self, size: int) -> np.ndarray:
        """A free room of at least `size` bytes, or a new one in place of one that is too small."""
        try:
            room = self._free.pop()
        except IndexError:
            room = np.empty(0, np.uint8)
        return room if len(room) >= size + ALIGNMENT else np.empty(size + ALIGNMENT, np.uint8)


class _Lease:
    """What the arrays in a room refer to, however they are sliced: it dies with the last of them.

    NumPy makes a view of a view refer to the first array that is not a view; an object that is no
    array it keeps.
    """

    def __init__(self, room: np.ndarray, free: deque[np.ndarray]):
        self._room, self._free = room, free
        self.__array_interface__ = room.__array_interface__

    def __del__(self) -> None:
        self._free.append(self._room)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT

"""Rows of an array that stays in its .npz archive: for features that do not fit into memory."""

import dataclasses
import math
import zipfile
from pathlib import Path

import numpy as np

from mmer_jax.data.arrays import Header
from mmer_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Stored:
    """An array [N, ...] in C order whose bytes lie uncompressed in a file.

    Slices of its rows, and these alone, are read when they are asked for. Nothing is mapped: a
    file that is shortened meanwhile is an error and not the end of the process.

    Attributes:
      path: the archive.
      shape, dtype: of the array.
      start: byte of the file where its numbers begin.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    start: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(len(self))
        found = np.empty((max(0, last - first), *self.shape[1:]), self.dtype)
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self.start + first * (self.nbytes // max(1, len(self))))
                if file.readinto(found) == found.nbytes:  # type: ignore[arg-type]
                    return found
        except OSError as error:
            raise UserError(f"{self.path} can be read no more: {error}; run again") from None
        raise UserError(f"{self.path} has become shorter while it was read; run again")


def stored_at(path: Path, info: zipfile.ZipInfo, header: Header) -> Stored | None:
    """The array of an archive's member with a checked header; None where it must be unpacked."""
    if info.compress_type != zipfile.ZIP_STORED or header.fortran or not header.shape:
        return None
    with path.open("rb") as file:  # the lengths of the member's name and extra field
        file.seek(info.header_offset + 26)
        lengths = file.read(4)
    names = int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    return Stored(path, header.shape, header.dtype, info.header_offset + 30 + names + header.start)

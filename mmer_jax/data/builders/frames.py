"""Where the records of a TFRecord shard lie, and whether they are what was written.

A frame is: length (uint64), its checksum (4 bytes), the data, its checksum (4 bytes). TFRecord's
own checksums (CRC-32C) are slow without a library for them; a set of records keeps the CRC-32 of
each record beside its shards.
"""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmer_jax.errors import UserError


def index(shards: Sequence[tuple[Path, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(shard, byte offset, byte size) of every row, from the frame lengths of the shards.

    Raises:
      UserError: a shard is missing or has not as many frames, or bytes, as it should.
    """
    rows = []
    for number, (path, count) in enumerate(shards):
        found = 0
        try:
            if path.exists() and not path.is_file():  # a pipe would be waited for
                raise damaged(path, "no regular file")
            end = path.stat().st_size
            with path.open("rb") as file:
                position = 0
                while position < end:
                    header = file.read(12)
                    size = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else end
                    if position + 16 + size > end:
                        raise damaged(path, f"truncated in record {found} of {count}")
                    rows.append((number, position + 12, size))
                    found += 1
                    position += 16 + size
                    file.seek(position)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            raise damaged(path, "missing" if missing else str(error)) from None
        if found != count:
            raise damaged(path, f"{found} records, expected {count}")
    table = np.array(rows, np.int64)
    return table[:, 0], table[:, 1], table[:, 2]


def checksums(shards: Sequence[tuple[Path, int]]) -> np.ndarray:
    """[N] uint32: the CRC-32 of every record, read from the shards."""
    shard_of, offsets, sizes = index(shards)
    sums = np.zeros(len(offsets), np.uint32)
    for number, (path, _) in enumerate(shards):
        with path.open("rb") as file:
            for row in np.flatnonzero(shard_of == number):
                file.seek(offsets[row])
                sums[row] = zlib.crc32(file.read(sizes[row]))
    return sums


def damaged(path: Path, what: str) -> UserError:
    """What is said of the shard `path`."""
    return UserError(
        f"TFRecord shard {path} is damaged ({what}). Delete {path.parent.parent.parent} and run "
        "again: the records are rebuilt from the feature directory."
    )

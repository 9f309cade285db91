"""Plain arrays out of .npy and .npz files that may be damaged or hostile.

Nothing is unpickled. A header is read and held against the size of its file before anything is
allocated, and a file must have exactly the bytes that its header speaks of.
"""

import ast
import contextlib
import dataclasses
import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

NUMBERS, TEXT, OBJECTS = "biuf", "SU", "O"  # kinds of dtypes
LONGEST_HEADER = 10_000  # bytes; numpy's own limit
CHUNK = 2**20
# Deflate packs at most 1,032 to 1. Features never come near; what does and is large is a bomb.
DEFLATE_RATIO, BOMB_RATIO, BOMB_BYTES = 1032, 100, 2**28


class BadArray(Exception):
    """Why a file cannot be read; the words follow the file's name."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What the head of an .npy file says; `start` is where its numbers begin."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    start: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype.str}{list(self.shape)}"


def read_header(file: BinaryIO) -> Header:
    """The header of an .npy file of formats 1 and 2 (format 3 is for structured arrays)."""
    magic = file.read(8)
    if magic[:6] != b"\x93NUMPY":
        raise BadArray("is not an .npy file")
    if magic[6:] not in (b"\x01\x00", b"\x02\x00"):
        raise BadArray(f"has .npy format version {list(magic[6:])}, expected 1.0 or 2.0")
    count = 2 if magic[6] == 1 else 4
    size = int.from_bytes(file.read(count), "little")
    if size > LONGEST_HEADER:
        raise BadArray(f"has a header of {size} bytes, expected at most {LONGEST_HEADER}")
    text = file.read(size)
    if len(text) < size:
        raise BadArray("is truncated in its header")
    return Header(*_parse_header(text.decode("latin-1")), start=8 + count + size)


def _parse_header(text: str) -> tuple[tuple[int, ...], np.dtype, bool]:
    try:
        told = ast.literal_eval(re.sub(r"(\d)L\b", r"\1", text).strip())  # 5L: of Python 2
        descr, fortran, shape = told["descr"], told["fortran_order"], told["shape"]
        plain = re.fullmatch(r"[<>|=]?([biufSU]\d+|O)", descr) and isinstance(fortran, bool)
        if plain and isinstance(shape, tuple) and len(shape) <= 8:
            if all(type(n) is int and n >= 0 for n in shape):
                return shape, np.dtype(descr), fortran
    except (ValueError, TypeError, KeyError, SyntaxError, OverflowError):
        pass
    except (MemoryError, RecursionError):  # what parsing deeply nested brackets ends in
        pass
    raise BadArray(f"has a header that is not of a plain array: {text[:80].strip()!r}")


def check_header(header: Header, size: int, kinds: str) -> None:
    """Refuse dtypes not of `kinds`, and a file whose `size` [bytes] its header does not explain."""
    if header.dtype.kind not in kinds:
        expected = {NUMBERS: "numbers", TEXT: "text"}.get(kinds, "numbers or text")
        raise BadArray(f"holds dtype {header.dtype}, expected {expected}")
    needed = header.start + header.nbytes
    if size < needed:
        raise BadArray(f"is truncated: {size} bytes, its header {header} needs {needed}")
    if size > needed:
        raise BadArray(f"has {size - needed} bytes more than its header {header} says")


def read_data(file: BinaryIO, header: Header) -> np.ndarray:
    """The array whose (checked) header has just been read from `file`."""
    if not header.nbytes:
        return np.zeros(header.shape, header.dtype)
    flat = np.empty(math.prod(header.shape), header.dtype)
    buffer = memoryview(flat.view(np.uint8))
    done = 0
    while done < len(buffer):
        count = file.readinto(buffer[done : done + CHUNK])  # type: ignore[attr-defined]
        if not count:
            raise BadArray(f"is truncated: its header {header} needs {header.nbytes} bytes")
        done += count
    if header.fortran:
        return flat.reshape(header.shape[::-1]).T
    return flat.reshape(header.shape)


def read_npy(path: Path, kinds: str = NUMBERS + TEXT) -> np.ndarray:
    """The array of an .npy file."""
    with explained(), path.open("rb") as file:
        header = read_header(file)
        check_header(header, path.stat().st_size, kinds)
        return read_data(file, header)


def npy_header(path: Path) -> Header:
    """The checked header of an .npy file of numbers."""
    with explained(), path.open("rb") as file:
        header = read_header(file)
        check_header(header, path.stat().st_size, NUMBERS)
        return header


class Npz:
    """An open .npz archive; `names` are its arrays."""

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        self._info: dict[str, zipfile.ZipInfo] = {}
        for info in archive.infolist():
            _check_member(info)
            if info.filename in self._info:
                raise BadArray(f"has '{info.filename}' twice")
            archive.open(info).close()  # its name in the directory is its name before its data
            self._info[info.filename] = info
        self.names = [name.removesuffix(".npy") for name in self._info]

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def header(self, name: str, kinds: str = NUMBERS + TEXT) -> Header:
        """The checked header of the array `name`."""
        with self._open(name) as file:
            header = read_header(file)
        check_header(header, self._size(name), kinds)
        return header

    def read(self, name: str) -> np.ndarray:
        """The array `name`; header() has been asked first."""
        with self._open(name) as file:
            return read_data(file, read_header(file))

    def check(self, name: str) -> None:
        """Read the array `name` through, against the checksum of the archive, and keep nothing."""
        with self._open(name) as file:
            while file.read(CHUNK):
                pass

    def info(self, name: str) -> zipfile.ZipInfo:
        """Where the array `name` lies."""
        return self._info[self._member(name)]

    def read_objects(self, name: str, largest: int) -> tuple[Header, bytes]:
        """(header, pickle of at most `largest` bytes) of an array of objects; nothing is loaded."""
        if self._size(name) > largest:
            raise BadArray(f"has '{name}' with {self._size(name)} bytes, expected up to {largest}")
        with self._open(name) as file:
            header = read_header(file)
            if header.dtype.kind != OBJECTS:
                raise BadArray(f"has '{name}' with dtype {header.dtype}, expected pickled objects")
            return header, file.read()

    def _open(self, name: str) -> BinaryIO:
        return self._archive.open(self.info(name))  # type: ignore[return-value]

    def _size(self, name: str) -> int:
        return self.info(name).file_size

    def _member(self, name: str) -> str:
        return f"{name}.npy" if f"{name}.npy" in self._info else name


@contextlib.contextmanager
def open_npz(path: Path) -> Iterator[Npz]:
    """An archive of arrays, whose members have been checked; raises BadArray."""
    with explained():
        with zipfile.ZipFile(path) as archive:
            yield Npz(archive)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an archive; raises BadArray."""
    with open_npz(path) as archive:
        for name in archive.names:
            archive.header(name)
        return {name: archive.read(name) for name in archive.names}


def _check_member(info: zipfile.ZipInfo) -> None:
    name, packed, size = info.filename, info.compress_size, info.file_size
    if name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts:
        raise BadArray(f"has a member '{name}' whose name leaves the archive")
    if info.flag_bits & 1:
        raise BadArray(f"has a member '{name}' that is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadArray(f"has a member '{name}' that numpy did not write; use numpy.savez")
    stored = info.compress_type == zipfile.ZIP_STORED
    if stored and packed != size or size > DEFLATE_RATIO * (packed + 1):
        raise BadArray(f"has a member '{name}' of {packed} bytes that claims {size}")
    if size > max(BOMB_BYTES, BOMB_RATIO * packed):
        raise BadArray(
            f"has a member '{name}' of {packed} bytes that unpacks to {size}: refused as a zip "
            "bomb; if it is not, write it again with numpy.savez"
        )


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Whatever a damaged file makes zipfile and zlib raise, as BadArray."""
    try:
        yield
    except MemoryError:
        raise BadArray("does not fit into memory") from None
    except (
        OSError,
        EOFError,
        ValueError,
        RuntimeError,  # NotImplementedError among them
        IndexError,
        OverflowError,
        struct.error,
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        zlib.error,
        io.UnsupportedOperation,
    ) as error:
        raise BadArray(f"cannot be read: {error}") from None

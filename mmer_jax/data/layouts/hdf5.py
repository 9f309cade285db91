"""HDF5 files with a dataset for each utterance, read without trusting what they claim.

A dataset may only hold what the file itself stores: HDF5 can also point to other files, leave
parts of a dataset out (they then read as zeros) or claim far more than there is.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np

from mmer_jax.data.arrays import DEFLATE_RATIO, NUMBERS, TEXT, BadArray
from mmer_jax.data.layouts.labels import as_text
from mmer_jax.data.layouts.release import PIECE_BYTES, Found, Piece, steps_and_dim
from mmer_jax.data.paths import file_inside
from mmer_jax.errors import UserError

# deflate, shuffle, fletcher32, szip and lzf: those that need no plug-in
FILTERS = {1, 2, 3, 4, 32000}


@contextlib.contextmanager
def opened(root: Path, path: Path) -> Iterator[h5py.File]:
    """The file `path` of the release `root`."""
    if not path.exists() and not path.is_symlink():
        raise UserError(f"feature file {path} does not exist")
    try:
        file = h5py.File(file_inside(root, path), "r")
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise UserError(f"{path} is not an HDF5 file, or a truncated one: {error}") from None
    with file:
        yield file


def find(file: h5py.File, name: str, ids: Iterable[str]) -> Found:
    """The modality `name` of the utterances `ids`: a dataset [T, D] or [D] for each."""
    found = Found(name, Path(file.filename))
    extra = set(keys(file))
    for utt_id in ids:
        if utt_id not in extra:
            continue
        extra.discard(utt_id)
        try:
            shape, dtype = check(file, utt_id, NUMBERS)
            steps, dim = steps_and_dim(shape, dtype)
        except BadArray as error:
            found.faults[utt_id] = str(error)
            continue
        if steps and dim:
            found.pieces[utt_id] = Piece(steps, dim, dtype, _reader(file, utt_id, (steps, dim)))
    found.extra = sorted(extra)
    return found


def _reader(file: h5py.File, name: str, shape: tuple[int, int]):
    return lambda: read(file, name).reshape(shape)


def keys(file: h5py.File) -> list[str]:
    """The names at the top of the file."""
    try:
        return list(file.keys())
    except Exception as error:  # h5py has no class of errors of its own
        raise UserError(f"{file.filename} is damaged: {error}") from None


def text(file: h5py.File, name: str) -> list[str]:
    """A dataset of strings, or of one."""
    check(file, name, TEXT)
    return as_text(read(file, name))


def check(file: h5py.File, name: str, kinds: str) -> tuple[tuple[int, ...], np.dtype]:
    """(shape, dtype) of a dataset that is wholly stored in this file.

    Raises:
      BadArray: it is not, it is damaged, or its dtype is not of `kinds`.
    """
    try:
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise BadArray("links to another place")
        dataset = file[name]
        if not isinstance(dataset, h5py.Dataset):
            raise BadArray("is not a dataset")
        shape, dtype = dataset.shape, dataset.dtype
        if shape is None:
            raise BadArray("is empty")
        is_text = dtype.kind in TEXT or h5py.check_string_dtype(dtype) is not None
        if not (is_text if kinds == TEXT else dtype.kind in kinds):
            raise BadArray(
                f"holds dtype {dtype}, expected {'text' if kinds == TEXT else 'numbers'}"
            )
        _check_storage(dataset)
        return shape, dtype
    except BadArray:
        raise
    except Exception as error:  # h5py has no class of errors of its own
        raise BadArray(f"is damaged: {error}") from None


def _check_storage(dataset: h5py.Dataset) -> None:
    if dataset.external or dataset.is_virtual:
        raise BadArray("is stored in another file")
    claimed = math.prod(dataset.shape) * dataset.id.get_type().get_size()
    stored, described = dataset.id.get_storage_size(), f"{dataset.dtype}{list(dataset.shape)}"
    if claimed > PIECE_BYTES:
        raise BadArray(f"claims {described}, too much for one utterance")
    filters = dataset.id.get_create_plist()
    for i in range(filters.get_nfilters()):
        if filters.get_filter(i)[0] not in FILTERS:
            raise BadArray(f"is packed with the filter {filters.get_filter(i)[0]}")
    whole = stored == claimed
    if dataset.chunks is not None:
        grid = [-(-n // step) for n, step in zip(dataset.shape, dataset.chunks, strict=True)]
        whole = dataset.id.get_num_chunks() == math.prod(grid)
        whole &= claimed <= DEFLATE_RATIO * (stored + 1)
    if claimed and not whole:
        raise BadArray(f"claims {described}, of which {stored} bytes are stored")


def read(file: h5py.File, name: str) -> np.ndarray:
    """The numbers or strings of a dataset that has been checked."""
    try:
        return np.asarray(file[name][()])
    except Exception as error:  # h5py has no class of errors of its own
        raise BadArray(f"cannot be read: {error}") from None

"""Features as .npy files: ID.npy, or a folder ID/ of arrays, one for each face, in their order."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from mmer_jax.data import arrays
from mmer_jax.data.arrays import BadArray
from mmer_jax.data.layouts.release import Found, Piece, steps_and_dim
from mmer_jax.data.paths import file_inside
from mmer_jax.errors import UserError

ENDING = ".npy"


def find(
    root: Path,
    folder: str,
    name: str,
    ids: Iterable[str],
    counts: Callable[[str, str], bool] | None = None,
) -> Found:
    """The modality `name` of the utterances `ids` in ROOT/`folder`.

    An array is [D] or [T, D]; without any step it is as if it were not there.

    Args:
      counts: (utterance id, file in its folder) -> whether that array is the utterance's, or
        BadArray; None: all are.
    """
    found = Found(name, root / folder)
    entries = _entries(root, found.source)
    for utt_id in ids:
        file, inner = entries.pop(utt_id + ENDING, None), entries.pop(utt_id, None)
        if file is None and inner is None:
            continue
        try:
            if file is not None and inner is not None:
                raise BadArray("is a file and a folder")
            paths = [found.source / f"{utt_id}{ENDING}"]
            if inner is not None:
                inside = found.source / utt_id
                faces = sorted(_entries(root, inside))
                paths = [inside / f for f in faces if counts is None or counts(utt_id, f)]
            piece = _piece(root, paths)
            if piece is not None:
                found.pieces[utt_id] = piece
        except (BadArray, UserError) as error:
            found.faults[utt_id] = str(error)
    found.extra = sorted(entry.removesuffix(ENDING) for entry in entries)
    return found


def names(root: Path, folder: str) -> set[str]:
    """The ids that ROOT/`folder` has."""
    return {entry.removesuffix(ENDING) for entry in _entries(root, root / folder)}


def _entries(root: Path, folder: Path) -> dict[str, os.DirEntry]:
    """The .npy files and the folders of a folder."""
    if not folder.is_dir():
        others = sorted(p.name for p in folder.parent.glob("*") if p.is_dir())
        raise UserError(f"{folder} is no folder; there is: {', '.join(others) or 'nothing'}")
    if not folder.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{folder} links to {folder.resolve()}, which is outside of {root}")
    with os.scandir(folder) as entries:
        return {e.name: e for e in entries if e.name.endswith(ENDING) or e.is_dir()}


def _piece(root: Path, paths: list[Path]) -> Piece | None:
    parts = []
    for path in paths:
        header = arrays.npy_header(file_inside(root, path))
        steps, dim = steps_and_dim(header.shape, header.dtype)
        if steps and dim:
            parts.append((path, steps, dim, header.dtype))
    if not parts:
        return None
    dims = sorted({dim for _, _, dim, _ in parts})
    if len(dims) > 1:
        raise BadArray(f"has arrays of different widths {dims}")

    def read() -> np.ndarray:
        blocks = [arrays.read_npy(path, arrays.NUMBERS) for path, *_ in parts]
        return np.concatenate(
            [x.reshape(n, dims[0]) for x, (_, n, _, _) in zip(blocks, parts, strict=True)]
        )

    dtype = np.result_type(*(dtype for *_, dtype in parts))
    return Piece(sum(steps for _, steps, _, _ in parts), dims[0], dtype, read)

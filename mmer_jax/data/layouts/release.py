"""What the importers share: features are found piece by piece, judged together, and written once.

Finding reads headers alone, so that everything that is wrong is said at once and nothing is
allocated for it. Writing holds the features of one utterance at a time: a corpus may be larger
than memory.
"""

import collections
import contextlib
import dataclasses
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from mmer_jax.data import feature_dir
from mmer_jax.data.arrays import BadArray
from mmer_jax.errors import UserError, shorten

PIECE_BYTES = 2**30  # an utterance with more is no utterance


@dataclasses.dataclass(frozen=True)
class Piece:
    """An utterance's features in a release: `read()` gives [steps, dim] numbers of `dtype`."""

    steps: int
    dim: int
    dtype: np.dtype
    read: Callable[[], np.ndarray]


@dataclasses.dataclass
class Found:
    """A modality of a release.

    Attributes:
      name: of the modality.
      source: the file or folder.
      pieces: of the utterances that have features.
      faults: utterance id (or file) -> why its features cannot be used.
      extra: what the source has besides the utterances asked for.
    """

    name: str
    source: Path
    pieces: dict[str, Piece] = dataclasses.field(default_factory=dict)
    faults: dict[str, str] = dataclasses.field(default_factory=dict)
    extra: list[str] = dataclasses.field(default_factory=list)

    @property
    def dim(self) -> int:
        """The width of most pieces."""
        counts = collections.Counter(piece.dim for piece in self.pieces.values())
        return max(counts, key=lambda dim: (counts[dim], dim))

    def complaints(self, ids: Sequence[str], missing: str) -> list[str]:
        """One sentence for each kind of trouble."""
        said = []
        if self.faults:
            told = [f"{name} {why}" for name, why in sorted(self.faults.items())]
            said.append(f"{self.source}: {len(told)} that cannot be used: {shorten(told)}")
        lacking = [i for i in ids if i not in self.pieces and i not in self.faults]
        if lacking and missing == "error":
            said.append(
                f"{self.source} lacks {len(lacking)} utterance(s): {shorten(lacking)}; "
                "--missing=absent imports them without this modality"
            )
        elif not self.pieces and not self.faults:
            said.append(f"{self.source} has features of none of the {len(ids)} utterances")
        if self.pieces:
            other = [
                f"{i} has [{p.steps}, {p.dim}]" for i, p in self.pieces.items() if p.dim != self.dim
            ]
            if other:
                said.append(
                    f"{self.source}: expected [T, {self.dim}], {len(other)} differ: "
                    f"{shorten(other)}"
                )
        return said


def steps_and_dim(shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, int]:
    """(T, D) of an array [D], [T, D], or one of these with axes of length 1 before.

    Raises:
      BadArray: it has another shape, or more bytes than an utterance can have.
    """
    if not shape or sum(n != 1 for n in shape[:-1]) > 1:
        raise BadArray(f"has shape {list(shape)}, expected [D] or [T, D]")
    if math.prod(shape) * dtype.itemsize > PIECE_BYTES:
        raise BadArray(f"claims {dtype}{list(shape)}, too much for one utterance")
    return math.prod(shape[:-1]), shape[-1]


def write(
    out: Path,
    columns: Mapping[str, Sequence[str]],
    found: Sequence[Found],
    *,
    missing: str = "error",
    pool: str = "none",
) -> list[str]:
    """Write the feature directory `out`; returns remarks for who imports.

    Args:
      columns: of utterances.csv, utt_id among them.
      found: its modalities.
      missing: "error" refuses utterances that a modality lacks; "absent" gives them a row of NaN,
        and leaves out those that have no modality at all.
      pool: "mean" over an utterance's steps, or "none".

    Raises:
      UserError: all that is wrong with the release's features, or `out` is not empty.
    """
    ids = list(columns["utt_id"])
    wrong = [line for modality in found for line in modality.complaints(ids, missing)]
    if wrong:
        raise UserError("\n".join(wrong))
    keep = [any(i in modality.pieces for modality in found) for i in ids]
    remarks = _remarks(ids, keep, found)
    rows = {k: [x for x, kept in zip(v, keep, strict=True) if kept] for k, v in columns.items()}
    with whole_directory(out) as folder:
        feature_dir.write_directory(folder, rows, {})
        for modality in found:
            _write_modality(folder, modality, rows["utt_id"], pool)
    return remarks


def _remarks(ids: list[str], keep: list[bool], found: Sequence[Found]) -> list[str]:
    said = []
    for modality in found:
        if modality.extra:
            said.append(
                f"{modality.source}: {len(modality.extra)} not among the utterances, left out: "
                f"{shorten(modality.extra)}"
            )
        absent = [i for i, kept in zip(ids, keep, strict=True) if kept and i not in modality.pieces]
        if absent:
            said.append(f"{modality.name} is absent for {len(absent)}: {shorten(absent)}")
    left_out = [i for i, kept in zip(ids, keep, strict=True) if not kept]
    if left_out:
        said.append(f"{len(left_out)} without any features, left out: {shorten(left_out)}")
    return said


def _write_modality(folder: Path, modality: Found, ids: list[str], pool: str) -> None:
    dim, pieces = modality.dim, [modality.pieces.get(i) for i in ids]
    lengths = np.array([1 if p is None or pool == "mean" else p.steps for p in pieces], np.int64)
    half = pool == "none" and all(p is None or p.dtype == np.float16 for p in pieces)
    dtype = np.dtype(np.float16 if half else np.float32)

    def blocks() -> Iterator[np.ndarray]:
        for utt_id, piece in zip(ids, pieces, strict=True):
            if piece is None:
                yield np.full((1, dim), np.nan, dtype)
                continue
            try:
                block = piece.read()
            except BadArray as error:
                raise UserError(f"{modality.source}: {utt_id} {error}") from None
            with np.errstate(over="ignore"):  # infinite in float32: reported when it is read
                if pool == "mean":
                    block = block.mean(axis=0, keepdims=True, dtype=np.float64)
                yield block.astype(dtype)

    packed = None if (lengths == 1).all() else lengths
    path = folder / f"{modality.name}.npz"
    feature_dir.write_modality(path, blocks(), (int(lengths.sum()), dim), dtype, packed)


@contextlib.contextmanager
def whole_directory(out: Path) -> Iterator[Path]:
    """A folder to write into that becomes `out` when all is written, and is gone if that fails."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not empty; remove it or choose another place")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        folder = Path(temporary) / "whole"
        folder.mkdir()
        yield folder
        folder.rename(out)

"""The feature directory that a user brings: utterances.csv and one <modality>.npz each.

`utterances.csv` has a column `utt_id` and any label or metadata columns. `<modality>.npz` holds
`features`, [N, D] for a vector per utterance or [sum T, D] with `lengths` [N] for sequences, its
rows in the order of utterances.csv. With an array `utt_id` [n] the file names its rows: they may
stand in any order, and an utterance without one has no such modality, just as if its features were
not finite.
"""

import csv
import hashlib
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mmer_jax.data import arrays
from mmer_jax.data.corpus import Corpus, RawModality, from_raw
from mmer_jax.data.paths import check_names, file_inside
from mmer_jax.data.stored import stored_at
from mmer_jax.errors import UserError, shorten

PLAIN = (np.float16, np.float32)  # dtypes that features are stored and kept in
COLUMN_BYTES = 2**30  # a column is an array of equally wide strings


def read_directory(root: str | Path, modalities: Sequence[str], **corpus_args) -> Corpus:
    """The corpus of a feature directory, all of it in host memory.

    Args:
      root: the directory.
      modalities: names of the .npz files, in the order of the model's modality axis.
      **corpus_args: label, task, classes, nonfinite as of `corpus.from_raw`.
    """
    root = Path(root).expanduser()
    columns, raw = read_raw(root, modalities)
    return from_raw(
        raw, columns, name=root.resolve().name, fingerprint=fingerprint(columns, raw), **corpus_args
    )


def read_raw(
    root: Path, modalities: Sequence[str], *, in_memory: bool = True
) -> tuple[dict[str, np.ndarray], dict[str, RawModality]]:
    """(columns of utterances.csv, modality -> stored features), checked against each other.

    Unless `in_memory`, features stay in their file where they can (`read_modality`).
    """
    if not root.is_dir():
        raise UserError(f"feature directory {root} does not exist; set --config.data.root")
    columns = read_utterances(root / "utterances.csv")
    if len(modalities) < 2 or len(set(modalities)) != len(modalities):
        raise UserError(
            f"data.modalities is {tuple(modalities)}; expected at least two different names"
        )
    ids = columns["utt_id"]
    return columns, {name: read_modality(root, name, ids, in_memory) for name in modalities}


def read_utterances(path: Path) -> dict[str, np.ndarray]:
    """Columns of utterances.csv as string arrays [N]."""
    if not path.exists() and not path.is_symlink():
        raise UserError(f"{path} does not exist; a feature directory needs it")
    try:
        with file_inside(path.parent, path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            table = list(reader)
            header = list(reader.fieldnames or [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a UTF-8 CSV file: {error}") from None
    if "utt_id" not in header:
        raise UserError(f"{path} has no column 'utt_id'; its columns are: {', '.join(header)}")
    if len(set(header)) != len(header):
        raise UserError(f"{path} names a column twice: {', '.join(header)}")
    if not table:
        raise UserError(f"{path} lists no utterance")
    for number, row in enumerate(table, start=2):
        if None in row or None in row.values():
            raise UserError(
                f"{path}, line {number}: expected {len(header)} fields as in the header"
            )
        if any("\0" in value for value in row.values()):
            raise UserError(f"{path}, line {number}: a NUL character")
    ids = [row["utt_id"] for row in table]
    if "" in ids:
        raise UserError(f"{path}, line {ids.index('') + 2}: empty utt_id")
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = [i for i in ids if i in seen or seen.add(i)]  # type: ignore[func-returns-value]
        raise UserError(f"{path}: {len(twice)} duplicate utt_id(s): {shorten(twice)}")
    return {name: _column(path, name, [row[name] for row in table]) for name in header}


def _column(path: Path, name: str, values: list[str]) -> np.ndarray:
    """[N] strings, each as wide as the widest."""
    widest = max(range(len(values)), key=lambda i: len(values[i]))
    if 4 * len(values) * len(values[widest]) > COLUMN_BYTES:
        raise UserError(
            f"{path}, line {widest + 2}: column '{name}' has {len(values[widest])} characters, too "
            f"many for a column of {len(values)} rows; shorten it or leave the column out"
        )
    return np.array(values)


def read_modality(root: Path, name: str, ids: np.ndarray, in_memory: bool = True) -> RawModality:
    """A modality's file, its rows in the order of `ids` [N]; NaN where it has no row.

    Unless `in_memory`, features of float16 or float32 that are not compressed, and whose rows have
    no names, are checked but stay in the file: a `Stored` in place of an array.
    """
    check_names([name], "data.modalities")
    path = root / f"{name}.npz"
    if not path.exists() and not path.is_symlink():
        found = sorted(p.stem for p in root.glob("*.npz"))
        raise UserError(
            f"feature file {path} does not exist; {root} has: {', '.join(found) or 'no .npz file'}"
            ". Choose with --config.data.modalities=\"('a','b')\"."
        )
    try:
        inside = file_inside(root, path)
        with arrays.open_npz(inside) as archive:
            return _read_modality(archive, ids, str(path), None if in_memory else inside)
    except arrays.BadArray as error:
        raise UserError(f"{path} {error}; expected an .npz of plain arrays") from None


def _read_modality(
    archive: arrays.Npz, ids: np.ndarray, source: str, leave_in: Path | None
) -> RawModality:
    """What the archive holds; every shape is checked before its numbers are read.

    With `leave_in`, the path of the archive, numbers stay in it where they can.
    """
    if "features" not in archive:
        raise UserError(f"{source} has no array 'features', only: {', '.join(archive.names)}")
    named, lengths = None, None
    if "utt_id" in archive:
        header = archive.header("utt_id")
        _check_names_layout(header.dtype, header.shape, source)
        named = _check_names(archive.read("utt_id"), ids, source)
    owners = ids if named is None else named
    if "lengths" in archive:
        header = archive.header("lengths")
        _check_lengths_layout(header.dtype, header.shape, owners, source)
        lengths = archive.read("lengths")
    listed = "utterances.csv" if named is None else "its utt_id"
    header = archive.header("features")
    _check_layout(header.dtype, header.shape, lengths, owners, source, listed)
    if leave_in is not None and named is None and header.dtype in PLAIN:
        stored = stored_at(leave_in, archive.info("features"), header)
        if stored is not None:
            archive.check("features")
            return check_modality(stored, lengths, owners, source, listed)  # type: ignore[arg-type]
    raw = check_modality(archive.read("features"), lengths, owners, source, listed)
    return raw if named is None else _by_name(raw, named, ids)


def _check_names_layout(dtype: np.dtype, shape: tuple[int, ...], source: str) -> None:
    if len(shape) != 1 or dtype.kind not in "US":
        raise UserError(
            f"{source}: utt_id is {dtype}{list(shape)}, expected strings [n], one for each row"
        )


def _check_names(named: np.ndarray, ids: np.ndarray, source: str) -> np.ndarray:
    """[n] strings: the utterances that the rows of a file belong to."""
    if not len(named):
        raise UserError(f"{source} has no row; remove the file, or give it the rows it should have")
    try:
        named = named.astype(str)
    except UnicodeDecodeError as error:
        raise UserError(f"{source}: utt_id is not ASCII: {error}; use str arrays") from None
    values, counts = np.unique(named, return_counts=True)
    if (counts > 1).any():
        twice = values[counts > 1]
        raise UserError(f"{source}: {len(twice)} duplicate utt_id(s): {shorten(twice)}")
    unknown = values[~np.isin(values, ids)]
    if len(unknown):
        raise UserError(
            f"{source}: {len(unknown)} utt_id(s) that utterances.csv does not list: "
            f"{shorten(unknown)}. Add them there, or remove their rows."
        )
    return named


def _by_name(raw: RawModality, named: np.ndarray, ids: np.ndarray) -> RawModality:
    """Rows of the utterances `named` [n] -> rows of `ids` [N]; NaN for those without a row."""
    place = {name: row for row, name in enumerate(named)}
    rows = np.array([place.get(name, -1) for name in ids])
    lengths, steps = None, rows  # which stored step each step is; -1: none
    if raw.lengths is not None:
        lengths = np.where(rows >= 0, raw.lengths[rows], 1)
        step = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        steps = np.where(
            np.repeat(rows, lengths) < 0, -1, np.repeat(raw.starts[rows], lengths) + step
        )
    features = raw.features[steps]
    features[steps < 0] = np.nan
    return RawModality(features, lengths, raw.source)


def check_modality(
    features: np.ndarray,
    lengths: np.ndarray | None,
    ids: np.ndarray,
    source: str,
    listed: str = "utterances.csv",
) -> RawModality:
    """A RawModality in float16 or float32 whose rows match `ids`, or a UserError.

    `source` and `listed` say where the features and the ids come from.
    """
    _check_layout(features.dtype, features.shape, lengths, ids, source, listed)
    if features.dtype not in PLAIN:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes inf and is reported
            features = features.astype(np.float32)
    return RawModality(features, None if lengths is None else lengths.astype(np.int64), source)


def _check_layout(
    dtype: np.dtype,
    shape: tuple[int, ...],
    lengths: np.ndarray | None,
    ids: np.ndarray,
    source: str,
    listed: str,
) -> None:
    """What check_modality demands, of the features' dtype and shape alone."""
    if dtype.kind not in "iuf":
        raise UserError(f"{source}: features have dtype {dtype}, expected real numbers")
    if len(shape) != 2 or shape[1] == 0:
        raise UserError(
            f"{source}: features have shape {shape}, expected [N, D], or [sum T, D] with "
            "lengths [N]"
        )
    if lengths is None:
        if shape[0] != len(ids):
            raise UserError(
                f"{source} has {shape[0]} rows, {listed} has {len(ids)}; sequences need "
                "an array 'lengths', fewer rows an array 'utt_id' that names them"
            )
        return
    _check_lengths_layout(lengths.dtype, lengths.shape, ids, source)
    if (lengths <= 0).any():
        bad = ids[lengths <= 0]
        raise UserError(
            f"{source}: {len(bad)} zero-length sequence(s): {shorten(bad)}. Give such an utterance "
            "one step of NaN and --config.data.nonfinite=missing, or remove it."
        )
    steps = sum(map(int, lengths))  # never wraps around
    if steps != shape[0]:
        raise UserError(f"{source}: lengths add up to {steps} steps, features have {shape[0]}")


def _check_lengths_layout(
    dtype: np.dtype, shape: tuple[int, ...], ids: np.ndarray, source: str
) -> None:
    if shape != (len(ids),) or dtype.kind not in "iu":
        raise UserError(
            f"{source}: lengths are {dtype}{list(shape)}, expected one integer for each of the "
            f"{len(ids)} utterances"
        )


def fingerprint(columns: Mapping[str, np.ndarray], raw: Mapping[str, RawModality]) -> str:
    """A hash of everything that a corpus is made of: the same content, the same fingerprint."""
    digest = hashlib.blake2b(digest_size=12)
    for name, column in columns.items():
        digest.update(f"{name}\0".encode() + "\0".join(column).encode() + b"\0")
    for name, modality in raw.items():
        digest.update(f"{name}{modality.features.dtype}{modality.features.shape}".encode())
        for part in modality.parts():
            digest.update(np.ascontiguousarray(part).data)
        if modality.lengths is not None:
            digest.update(np.ascontiguousarray(modality.lengths).data)
    return digest.hexdigest()


def write_directory(
    root: str | Path,
    columns: Mapping[str, Sequence[str] | np.ndarray],
    raw: Mapping[str, RawModality],
) -> None:
    """Write a feature directory (importers and synthetic corpora use it)."""
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    with (root / "utterances.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    for name, modality in raw.items():
        write_modality(
            root / f"{name}.npz",
            [modality.features],
            modality.features.shape,
            modality.features.dtype,
            modality.lengths,
        )


def write_modality(
    path: Path,
    pieces: Iterable[np.ndarray],
    shape: tuple[int, ...],
    dtype: np.dtype,
    lengths: np.ndarray | None,
) -> None:
    """Write a modality's file as numpy.savez does, from `pieces` [n, D] that need not fit memory.

    Args:
      pieces: rows or steps, in order.
      shape, dtype: of all of them together.
      lengths: [N] of sequences.
    """
    layout = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": tuple(shape)}
    rows = 0
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("features.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, layout)
            for piece in pieces:
                assert piece.shape[1:] == tuple(shape)[1:] and piece.dtype == dtype
                file.write(np.ascontiguousarray(piece).data)
                rows += len(piece)
        assert rows == shape[0]
        if lengths is not None:
            with archive.open("lengths.npy", "w") as file:
                np.lib.format.write_array(file, lengths, allow_pickle=False)

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
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmer_jax.data.corpus import Corpus, RawModality, from_raw
from mmer_jax.errors import UserError, shorten

# What numpy and zipfile raise for a file that is not an archive of plain arrays.
NOT_AN_ARCHIVE = (
    ValueError,
    OSError,
    EOFError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)


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
    root: Path, modalities: Sequence[str]
) -> tuple[dict[str, np.ndarray], dict[str, RawModality]]:
    """(columns of utterances.csv, modality -> stored features), checked against each other."""
    if not root.is_dir():
        raise UserError(f"feature directory {root} does not exist; set --config.data.root")
    columns = read_utterances(root / "utterances.csv")
    if len(modalities) < 2 or len(set(modalities)) != len(modalities):
        raise UserError(
            f"data.modalities is {tuple(modalities)}; expected at least two different names"
        )
    return columns, {name: read_modality(root, name, columns["utt_id"]) for name in modalities}


def read_utterances(path: Path) -> dict[str, np.ndarray]:
    """Columns of utterances.csv as string arrays [N]."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            table = list(reader)
            header = reader.fieldnames or []
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; a feature directory needs it") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a UTF-8 CSV file: {error}") from None
    if "utt_id" not in header:
        raise UserError(f"{path} has no column 'utt_id'; its columns are: {', '.join(header)}")
    if not table:
        raise UserError(f"{path} lists no utterance")
    for number, row in enumerate(table, start=2):
        if None in row or None in row.values():
            raise UserError(
                f"{path}, line {number}: expected {len(header)} fields as in the header"
            )
    ids = [row["utt_id"] for row in table]
    if "" in ids:
        raise UserError(f"{path}, line {ids.index('') + 2}: empty utt_id")
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = [i for i in ids if i in seen or seen.add(i)]  # type: ignore[func-returns-value]
        raise UserError(f"{path}: {len(twice)} duplicate utt_id(s): {shorten(twice)}")
    return {name: np.array([row[name] for row in table]) for name in header}


def read_modality(root: Path, name: str, ids: np.ndarray) -> RawModality:
    """A modality's file, its rows in the order of `ids` [N]; NaN where it has no row."""
    path = root / f"{name}.npz"
    if not path.exists():
        found = sorted(p.stem for p in root.glob("*.npz"))
        raise UserError(
            f"feature file {path} does not exist; {root} has: {', '.join(found) or 'no .npz file'}"
            ". Choose with --config.data.modalities=\"('a','b')\"."
        )
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if "features" not in archive:
                raise UserError(f"{path} has no array 'features', only: {', '.join(archive.files)}")
            features = archive["features"]
            lengths = archive["lengths"] if "lengths" in archive else None
            named = archive["utt_id"] if "utt_id" in archive else None
    except (*NOT_AN_ARCHIVE, TypeError) as error:  # TypeError: an .npy under the name .npz
        raise UserError(f"{path} cannot be read as an .npz of plain arrays: {error}") from None
    if named is None:
        return check_modality(features, lengths, ids, str(path))
    named = _check_names(named, ids, str(path))
    raw = check_modality(features, lengths, named, str(path), listed="its utt_id")
    return _by_name(raw, named, ids)


def _check_names(named: np.ndarray, ids: np.ndarray, source: str) -> np.ndarray:
    """[n] strings: the utterances that the rows of a file belong to."""
    if named.ndim != 1 or named.dtype.kind not in "US":
        raise UserError(
            f"{source}: utt_id is {named.dtype}{list(named.shape)}, expected strings [n], one for "
            "each row"
        )
    if not len(named):
        raise UserError(f"{source} has no row; remove the file, or give it the rows it should have")
    named = named.astype(str)
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
    if not (np.issubdtype(features.dtype, np.number) and not np.iscomplexobj(features)):
        raise UserError(f"{source}: features have dtype {features.dtype}, expected real numbers")
    if features.ndim != 2 or features.shape[1] == 0:
        raise UserError(
            f"{source}: features have shape {features.shape}, expected [N, D], or [sum T, D] with "
            "lengths [N]"
        )
    if features.dtype not in (np.float16, np.float32):
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes inf and is reported
            features = features.astype(np.float32)
    if lengths is None:
        if len(features) != len(ids):
            raise UserError(
                f"{source} has {len(features)} rows, {listed} has {len(ids)}; sequences need "
                "an array 'lengths', fewer rows an array 'utt_id' that names them"
            )
        return RawModality(features, None, source)
    if lengths.shape != (len(ids),) or not np.issubdtype(lengths.dtype, np.integer):
        raise UserError(
            f"{source}: lengths are {lengths.dtype}{list(lengths.shape)}, expected one integer for "
            f"each of the {len(ids)} utterances"
        )
    if (lengths <= 0).any():
        bad = ids[lengths <= 0]
        raise UserError(
            f"{source}: {len(bad)} zero-length sequence(s): {shorten(bad)}. Give such an utterance "
            "one step of NaN and --config.data.nonfinite=missing, or remove it."
        )
    lengths = lengths.astype(np.int64)
    if lengths.sum() != len(features):
        raise UserError(
            f"{source}: lengths add up to {lengths.sum()} steps, features have {len(features)}"
        )
    return RawModality(features, lengths, source)


def fingerprint(columns: Mapping[str, np.ndarray], raw: Mapping[str, RawModality]) -> str:
    """A hash of everything that a corpus is made of: the same content, the same fingerprint."""
    digest = hashlib.blake2b(digest_size=12)
    for name, column in columns.items():
        digest.update(f"{name}\0".encode() + "\0".join(column).encode() + b"\0")
    for name, modality in raw.items():
        digest.update(f"{name}{modality.features.dtype}{modality.features.shape}".encode())
        digest.update(np.ascontiguousarray(modality.features).data)
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
        arrays = {"features": modality.features}
        if modality.lengths is not None:
            arrays["lengths"] = modality.lengths
        np.savez(root / f"{name}.npz", **arrays)  # type: ignore[arg-type]

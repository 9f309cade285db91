"""The TFDS builder that turns a feature directory into sharded TFRecords, once.

A record holds one utterance: its row, its id and, per modality, the raw little-endian bytes of its
features, so that the pipeline decodes and pads a whole batch with one operation. Rows keep the
order of utterances.csv across the shards. Beside the shards lie utterances.csv, index.npz and
source.json, written last with a digest of all three: a folder where it does not fit is unfinished
or damaged and is built again. index.npz has the checksum of every record.
"""

import contextlib
import dataclasses
import glob
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from mmer_jax.data import arrays, feature_dir
from mmer_jax.data.builders import frames
from mmer_jax.data.corpus import Modality, RawModality
from mmer_jax.data.paths import file_inside
from mmer_jax.errors import UserError, is_disk_full
from mmer_jax.records import one_at_a_time
from mmer_jax.whole_folder import write_whole

SHARD_BYTES = 64 * 2**20
# TFDS sorts records by their keys, in a thousand parts of all keys that there may be. Keys that are
# spread over these keep the order of the rows, and no more than a part lies in memory at a time.
KEYS = 2**128
MIN_SHARDS = 8  # so that the processes of a small cluster each have some to read

tf.config.set_visible_devices([], "GPU")  # the accelerator belongs to JAX


class FeatureRecords(tfds.core.GeneratorBasedBuilder):
    """Utterances of one feature directory as records."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, ids: np.ndarray, raw: dict[str, RawModality], **kwargs):
        self._ids = ids
        self._raw = raw
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        modalities = {
            name: tfds.features.Tensor(
                shape=(None, m.features.shape[1]), dtype=m.features.dtype, encoding="bytes"
            )
            for name, m in self._raw.items()
        }
        features = tfds.features.FeaturesDict(
            {"row": np.int64, "utt_id": tfds.features.Text(), **modalities}
        )
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {"corpus": self._generate_examples()}

    def _generate_examples(self):
        ends = {
            name: np.arange(1, len(m) + 1) if m.lengths is None else np.cumsum(m.lengths)
            for name, m in self._raw.items()
        }
        for row, utt_id in enumerate(self._ids):
            example = {"row": row, "utt_id": str(utt_id)}
            for name, modality in self._raw.items():
                start = 0 if row == 0 else ends[name][row - 1]
                example[name] = modality.features[start : ends[name][row]]
            yield row * (KEYS // len(self._ids)), example


@dataclasses.dataclass(frozen=True)
class RecordSet:
    """A finished set of records: what the pipeline opens.

    Attributes:
      folder: holds utterances.csv.
      shards: (TFRecord file, number of its records), in row order.
      modalities, dtypes, lengths, finite: as of `corpus.assemble`.
      checksums: [N] CRC-32 of each record.
      fingerprint: of the content the records were made from.
      built: False when an earlier build was reused.
    """

    folder: Path
    shards: tuple[tuple[Path, int], ...]
    modalities: tuple[Modality, ...]
    dtypes: dict[str, np.dtype]
    lengths: dict[str, np.ndarray]
    finite: np.ndarray
    checksums: np.ndarray
    fingerprint: str
    built: bool


def prepare(root: str | Path, modalities: Sequence[str], records_dir: str | Path) -> RecordSet:
    """The records of a feature directory: reused if its content is unchanged, else built.

    Unchanged files (name, size, modification time) are trusted at once. Touched files are read and
    hashed; only other content is written again, beside the earlier records, so that a run that
    still reads those is not disturbed. Any folder in `records_dir` may be deleted between runs.

    Raises:
      UserError: the directory is faulty, the disk is full or the records are damaged.
    """
    root, modalities = Path(root).expanduser().resolve(), tuple(modalities)
    place = hashlib.blake2b(f"{root}\0{modalities}".encode(), digest_size=5).hexdigest()
    records_dir, prefix = Path(records_dir).expanduser(), f"{root.name}-{place}-"
    stamp = _stamp(root, modalities)
    found = _unchanged(records_dir, prefix, stamp)
    if found is None:
        with one_at_a_time(records_dir / f".{prefix}lock"):  # or several workers build the same
            found = _unchanged(records_dir, prefix, stamp)
            found = found or _renewed(records_dir, prefix, stamp, root, modalities)
    return found


def _unchanged(records_dir: Path, prefix: str, stamp: list | None) -> RecordSet | None:
    """Records whose source files are the same as when they were last looked at."""
    for folder in records_dir.glob(f"{glob.escape(prefix)}*"):
        source = _read_source(folder)
        if source is not None and stamp is not None and source["stamp"] == stamp:
            return _open(folder, source, built=False)
    return None


def _renewed(
    records_dir: Path, prefix: str, stamp: list | None, root: Path, modalities: tuple[str, ...]
) -> RecordSet:
    """Records of the directory's content, built where no earlier ones hold it."""
    columns, raw = feature_dir.read_raw(root, modalities, in_memory=False)
    fingerprint = feature_dir.fingerprint(columns, raw)
    folder = records_dir / f"{prefix}{fingerprint[:10]}"
    source = _read_source(folder)
    built = source is None
    try:
        if source is None:
            source = _build(folder, columns, raw, fingerprint)
            if _stamp(root, modalities) != stamp:
                raise UserError(f"{root} has changed while its records were built; run again")
        source = {**source, "stamp": stamp}
        _write_source(folder, source)
    except OSError as error:
        raise UserError(f"records cannot be written to {folder}: {error}") from error
    except Exception as error:
        if is_disk_full(error):
            raise UserError(
                f"disk full while writing records to {folder}; free space there or choose another "
                "place with --config.data.records_dir"
            ) from error
        raise
    return _open(folder, source, built=built)


def _build(folder: Path, columns, raw: dict[str, RawModality], fingerprint: str) -> dict:
    """Write the records and move them to `folder` as a whole; returns what source.json says."""
    return write_whole(
        folder,
        lambda unfinished: _write_records(unfinished, columns, raw, fingerprint),
        family=folder.name.rpartition("-")[0],
    )


def _write_records(folder: Path, columns, raw: dict[str, RawModality], fingerprint: str) -> dict:
    builder = FeatureRecords(ids=columns["utt_id"], raw=raw, data_dir=folder)
    total = sum(modality.features.nbytes for modality in raw.values())
    n_shards = min(len(columns["utt_id"]), max(MIN_SHARDS, -(-total // SHARD_BYTES)))
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS speaks of downloads; there are none
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(num_shards=n_shards)
        )
    feature_dir.write_directory(folder, columns, {})
    split = builder.info.splits["corpus"]
    shards = [(Path(p), n) for p, n in zip(split.filepaths, split.shard_lengths, strict=True)]
    np.savez(
        folder / "index.npz",
        finite=np.stack([m.finite_rows() for m in raw.values()], axis=1),
        checksums=frames.checksums(shards),
        **{f"lengths/{k}": m.lengths for k, m in raw.items() if m.lengths is not None},
    )
    return {
        "fingerprint": fingerprint,
        "modalities": [dataclasses.asdict(m.spec(name)) for name, m in raw.items()],
        "dtypes": {name: m.features.dtype.name for name, m in raw.items()},
        "shards": [[str(path.relative_to(folder)), count] for path, count in shards],
    }


def _open(folder: Path, source: dict, *, built: bool) -> RecordSet:
    modalities = tuple(Modality(**m) for m in source["modalities"])
    index = arrays.read_npz(folder / "index.npz")
    return RecordSet(
        folder=folder,
        shards=tuple((folder / path, count) for path, count in source["shards"]),
        modalities=modalities,
        dtypes={name: np.dtype(dtype) for name, dtype in source["dtypes"].items()},
        lengths={
            m.name: index[f"lengths/{m.name}"].astype(np.int32) for m in modalities if m.is_sequence
        },
        finite=index["finite"],
        checksums=index["checksums"],
        fingerprint=source["fingerprint"],
        built=built,
    )


def _stamp(root: Path, modalities: Sequence[str]) -> list | None:
    files = [root / "utterances.csv", *(root / f"{name}.npz" for name in modalities)]
    if not all(file.exists() for file in files):
        return None  # reading the directory will say what is missing
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _read_source(folder: Path) -> dict | None:
    """What a finished folder says of itself; None if it is not one, or not as it was written."""
    try:
        path = file_inside(folder, folder / "source.json")
        source = json.loads(path.read_text(encoding="utf-8"))
        digest = source.pop("digest")
        return source if digest == _digest(folder, source) else None
    except (UserError, OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return None


def _write_source(folder: Path, source: dict) -> None:
    content = json.dumps({**source, "digest": _digest(folder, source)})
    temporary = folder / "source.json.tmp"
    temporary.write_text(content, encoding="utf-8")
    temporary.replace(folder / "source.json")


def _digest(folder: Path, source: dict) -> str:
    """Of everything but the shards, whose records have checksums of their own."""
    digest = hashlib.blake2b(json.dumps(source, sort_keys=True).encode(), digest_size=12)
    for name in ("index.npz", "utterances.csv"):
        digest.update(file_inside(folder, folder / name).read_bytes())
    return digest.hexdigest()

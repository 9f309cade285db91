"""The tf.data pipeline: rows of a corpus read from TFRecords, in any order, padded and prefetched.

The order of rows is decided elsewhere (a pure function of seed and epoch), so that streaming from
records trains on exactly the batches that a device-resident corpus does, and resuming at a step is
just a later start of the same sequence. The first time a record is read it is checked and its
features are found in it; from then on these are read from the file straight to their place in the
padded array, one copy in all, by several threads. tf.data carries these arrays without a copy.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path

import numpy as np
import tensorflow as tf

from mmer_jax.data import feature_dir
from mmer_jax.data.builders import examples, feature_records, frames
from mmer_jax.data.corpus import Corpus, Features, assemble
from mmer_jax.data.rooms import Rooms
from mmer_jax.errors import UserError

READERS = 4  # threads, each with its share of the rows of a batch


def read_records(
    root: str | Path, modalities: Sequence[str], records_dir: str | Path, **corpus_args
) -> Corpus:
    """The corpus of a feature directory, read from its records, which are built when needed.

    Args:
      root, modalities: as of `feature_dir.read_directory`.
      records_dir: where records are kept.
      **corpus_args: label, task, classes, nonfinite as of `corpus.from_raw`.
    """
    records = feature_records.prepare(root, modalities, records_dir)
    return assemble(
        modalities=records.modalities,
        dtypes=records.dtypes,
        lengths=records.lengths,
        finite=records.finite,
        sources={m.name: f"{root}/{m.name}.npz" for m in records.modalities},
        columns=feature_dir.read_utterances(records.folder / "utterances.csv"),
        source=RecordSource(records),
        name=Path(root).resolve().name,
        fingerprint=records.fingerprint,
        **corpus_args,
    )


class RecordSource:
    """Random access to the rows of a record set (a `corpus.Source`)."""

    def __init__(self, records: feature_records.RecordSet):
        self._modalities = records.modalities
        self._dtypes = records.dtypes
        self._paths = [path for path, _ in records.shards]
        self._shard_of, self._offsets, self._sizes = frames.index(records.shards)
        self._checksums = records.checksums
        self._steps = np.ones((len(self._offsets), len(records.modalities)), np.int64)
        for m, modality in enumerate(records.modalities):
            if modality.is_sequence:
                self._steps[:, m] = records.lengths[modality.name]
        # [N, M] where features begin in their shard; 0: the record has not been checked yet.
        self._places = np.zeros(self._steps.shape, np.int64)
        self._rooms = Rooms()

    def rows_of_process(self, index: int, count: int) -> np.ndarray:
        """Rows of every `count`-th shard, from shard `index` on."""
        return np.flatnonzero(self._shard_of % count == index)

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[Features]:
        batches = [np.asarray(rows, np.int64) for rows in batches]
        # Memory is used again for the next batch. Of one alone, such as a resident corpus, none is
        # to be expected.
        rooms = self._rooms if len(batches) > 1 else Rooms()
        with ThreadPoolExecutor(READERS, thread_name_prefix="read-records") as readers:
            damage: list[UserError] = []

            def read(number: int) -> list[np.ndarray]:
                try:
                    return list(self._read(batches[number], rooms, readers).values())
                except UserError as error:  # of which tf.data would tell the words alone
                    damage.append(error)
                    raise

            names = [m.name for m in self._modalities]
            dtypes = [self._dtypes[name] for name in names]
            dataset = tf.data.Dataset.range(len(batches)).map(
                lambda number: tf.numpy_function(read, [number], dtypes)
            )
            try:
                for arrays in dataset.with_options(_options()).as_numpy_iterator():
                    yield dict(zip(names, arrays, strict=True))
            except tf.errors.OpError:
                if damage:
                    raise damage[0] from None
                raise

    def _read(self, rows: np.ndarray, rooms: Rooms, readers: ThreadPoolExecutor) -> Features:
        features = rooms.arrays(
            {m.name: ((len(rows), *m.shape), self._dtypes[m.name]) for m in self._modalities}
        )
        in_file_order = np.argsort(rows, kind="stable")  # rows keep their order across the shards
        shares = np.array_split(in_file_order, READERS)
        for done in [readers.submit(self._read_share, features, rows, s) for s in shares]:
            done.result()
        return features

    def _read_share(self, features: Features, rows: np.ndarray, positions: np.ndarray) -> None:
        """Read the rows at `positions` [n] of `rows` to the same positions of `features`."""
        shards = self._shard_of[rows[positions]]
        for shard in np.unique(shards):
            path = self._paths[shard]
            try:
                with path.open("rb", buffering=0) as file:
                    for position in positions[shards == shard].tolist():
                        row = int(rows[position])
                        if not self._places[row, 0]:
                            self._check(file, path, row)
                        self._fill(file, path, row, features, position)
            except OSError as error:
                missing = isinstance(error, FileNotFoundError)
                raise frames.damaged(path, "missing" if missing else str(error)) from None

    def _fill(self, file: FileIO, path: Path, row: int, features: Features, position: int) -> None:
        """Read one row's features to their place; what is left of a sequence becomes zeros."""
        for m, modality in enumerate(self._modalities):
            target = features[modality.name][position]
            if modality.is_sequence:
                target[self._steps[row, m] :] = 0
                target = target[: self._steps[row, m]]
            file.seek(self._places[row, m])
            if file.readinto(target) != target.nbytes:
                raise frames.damaged(path, f"truncated in the record of row {row}")

    def _check(self, file: FileIO, path: Path, row: int) -> None:
        """Hold a record against its checksum, and find its features in it."""
        file.seek(self._offsets[row])
        record = file.read(self._sizes[row])
        if zlib.crc32(record) != self._checksums[row]:
            raise frames.damaged(path, f"in the record of row {row}")
        try:
            found = examples.locate(record)
        except ValueError as error:
            raise frames.damaged(path, f"{error} in the record of row {row}") from None
        for m, modality in reversed(list(enumerate(self._modalities))):  # the first says: checked
            start, size = found.get(modality.name, (0, -1))
            expected = self._steps[row, m] * modality.dim * self._dtypes[modality.name].itemsize
            if size != expected:
                what = f"'{modality.name}' of row {row} has {max(size, 0)} bytes, not {expected}"
                raise frames.damaged(path, what)
            self._places[row, m] = self._offsets[row] + start


def _options() -> tf.data.Options:
    """Without the tuner, which may sleep for seconds at the end of a dataset."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = 1
    return options

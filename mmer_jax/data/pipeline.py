"""The tf.data pipeline: rows of a corpus read from TFRecords, in any order, padded and prefetched.

The order of rows is decided elsewhere (a pure function of seed and epoch), so that streaming from
records trains on exactly the batches that a device-resident corpus does, and resuming at a step is
just a later start of the same sequence. Records are found by their byte offsets; tf.data reads
ahead, decodes and pads.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from mmer_jax.data import feature_dir
from mmer_jax.data.builders import feature_records, frames
from mmer_jax.data.corpus import Corpus, Features, assemble
from mmer_jax.errors import UserError

PARALLEL_READS = 2
PREFETCH = 2


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
        self._verified = np.zeros(len(records.checksums), bool)  # each record once is enough
        self._damage: UserError | None = None

    def rows_of_process(self, index: int, count: int) -> np.ndarray:
        """Rows of every `count`-th shard, from shard `index` on."""
        return np.flatnonzero(self._shard_of % count == index)

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[Features]:
        def parse(rows):
            serialized = tf.numpy_function(self._read, [rows], tf.string)
            return self._decode(serialized)

        dataset = (
            tf.data.Dataset.from_generator(
                lambda: (np.asarray(rows, np.int64) for rows in batches),
                output_signature=tf.TensorSpec([None], tf.int64),
            )
            .map(parse, num_parallel_calls=PARALLEL_READS, deterministic=True)
            .prefetch(PREFETCH)
        )
        try:
            yield from dataset.as_numpy_iterator()
        except tf.errors.OpError as error:
            if self._damage is not None:
                raise self._damage from None
            raise UserError(
                f"TFRecords in {self._paths[0].parent} cannot be decoded ({error.message[:200]}). "
                "Delete the folder and run again: the records are rebuilt."
            ) from error

    def _read(self, rows: np.ndarray) -> np.ndarray:
        """The serialized records of rows [n], as an array of bytes objects."""
        data = np.empty(len(rows), object)
        shards = self._shard_of[rows]
        for shard in np.unique(shards):
            with self._paths[shard].open("rb") as file:
                for position in np.flatnonzero(shards == shard):
                    row = rows[position]
                    file.seek(self._offsets[row])
                    data[position] = file.read(self._sizes[row])
                    if not self._verified[row]:
                        if zlib.crc32(data[position]) != self._checksums[row]:
                            what = f"in the record of row {row}"
                            self._damage = frames.damaged(self._paths[shard], what)
                            raise self._damage
                        self._verified[row] = True
        return data

    def _decode(self, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        names = [m.name for m in self._modalities]
        parsed = tf.io.parse_example(
            serialized, {name: tf.io.FixedLenFeature([], tf.string) for name in names}
        )
        features = {}
        for m in self._modalities:
            dtype = self._dtypes[m.name]
            numbers = m.dim * max(1, m.max_steps)
            # Zero-padding to the longest sequence happens here, in the decoding itself.
            flat = tf.io.decode_raw(
                parsed[m.name],
                tf.int16 if dtype == np.float16 else tf.as_dtype(dtype),  # no kernel for halves
                fixed_length=numbers * dtype.itemsize,
            )
            flat = tf.bitcast(flat, tf.as_dtype(dtype))
            shape = (-1, m.max_steps, m.dim) if m.is_sequence else (-1, m.dim)
            features[m.name] = tf.reshape(flat, shape)
        return features

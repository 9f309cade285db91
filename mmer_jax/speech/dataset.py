"""Utterances of a feature directory as batches, from TFRecords or from memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mmer_jax.data import feature_dir
from mmer_jax.data.corpus import MemorySource, Source
from mmer_jax.errors import UserError
from mmer_jax.speech.batch import SpeechBatch
from mmer_jax.speech.extract import MODALITIES

N_BUCKETS = 4  # widths that batches are padded to: as many programs are compiled
WIDTH_STEP = 32  # frames


class SpeechData:
    """The utterances of a feature directory; a row is an utterance.

    Attributes:
      columns: utt_id, text, speaker, accent, split: [N] strings each.
      speakers, accents: what `SpeechBatch.speaker` and `.accent` number; accent 0 is L1.
      n_frames, n_phones: [N].
      fingerprint: changes with the content.
    """

    def __init__(self, columns, source: Source, n_frames, n_phones, fingerprint: str):
        self.columns, self._source = columns, source
        self.n_frames, self.n_phones = n_frames, n_phones
        self.fingerprint = fingerprint
        self.speakers = tuple(sorted(set(map(str, columns["speaker"]))))
        self.accents = ("", *sorted(set(map(str, columns["accent"])) - {""}))
        self._speaker = np.searchsorted(self.speakers, columns["speaker"]).astype(np.int32)
        self._accent = np.searchsorted(self.accents, columns["accent"]).astype(np.int32)
        quantiles = np.quantile(n_frames, np.arange(1, N_BUCKETS + 1) / N_BUCKETS)
        self._widths = np.unique(WIDTH_STEP * np.ceil(quantiles / WIDTH_STEP)).astype(int)

    def __len__(self) -> int:
        return len(self.n_frames)

    def rows(self, split: str, accent: str | None = None) -> np.ndarray:
        """The rows of a split; of one accent ("": L1), or of all."""
        chosen = self.columns["split"] == split
        if accent is not None:
            chosen &= self.columns["accent"] == accent
        return np.flatnonzero(chosen)

    def batches(
        self, rows: np.ndarray, size: int, order: np.random.Generator | None
    ) -> list[np.ndarray]:
        """Rows in tables [size] of similar length; -1 fills up.

        Args:
          order: shuffles rows and tables; None: rows come by length.
        """
        bucket = np.searchsorted(self._widths, self.n_frames[rows])
        tables = []
        for number in range(len(self._widths)):
            mine = rows[bucket == number]
            by_length = np.argsort(self.n_frames[mine], kind="stable")
            mine = mine[by_length] if order is None else order.permutation(mine)
            for start in range(0, len(mine), size):
                table = mine[start : start + size]
                tables.append(np.pad(table, (0, size - len(table)), constant_values=-1))
        if order is not None:
            tables = [tables[i] for i in order.permutation(len(tables))]
        return tables

    def stream(self, tables: Sequence[np.ndarray]) -> Iterator[SpeechBatch]:
        """The batches of tables of rows, in order, read ahead where that helps."""
        read = [np.maximum(table, 0) for table in tables]
        for table, rows, found in zip(tables, read, self._source.stream(read), strict=True):
            yield self._batch(table, rows, found)

    def _batch(self, table: np.ndarray, rows: np.ndarray, found) -> SpeechBatch:
        longest = self.n_frames[rows[table >= 0]].max(initial=1)
        width = int(self._widths[np.searchsorted(self._widths, longest)])
        mel, phones = found["mel"], found["phones"]
        mel = np.pad(mel, [(0, 0), (0, max(0, width - mel.shape[1])), (0, 0)])[:, :width]
        extra = phones.shape[-1] > 3  # annotated: pitch, energy, goodness and intensity follow
        ids, words, durations = (phones[..., i].astype(np.int32) for i in range(3))
        inside = np.arange(ids.shape[1])[None] < self.n_phones[rows][:, None]
        nothing = np.zeros(ids.shape, np.float32)
        return SpeechBatch(
            mel=np.ascontiguousarray(mel),
            n_frames=self.n_frames[rows],
            phones=ids,
            n_phones=self.n_phones[rows],
            durations=durations,
            pitch=phones[..., 3] if extra else nothing,
            energy=phones[..., 4] if extra else nothing,
            intensity=phones[..., 6] if extra else nothing,
            speaker=self._speaker[rows],
            accent=self._accent[rows],
            words=np.where(inside, words, -1),
            weights=(table >= 0).astype(np.float32),
        )


def open_features(folder: Path, *, source: str, records_dir: Path) -> SpeechData:
    """The utterances of a feature directory that extract.py or annotate.py wrote.

    Args:
      source: "records" reads TFRecords, built in `records_dir` when needed; "directory" the .npz
        files, into memory.
    """
    if source == "directory":
        columns, raw = feature_dir.read_raw(folder, MODALITIES)
        return SpeechData(
            columns,
            MemorySource(raw),
            np.asarray(raw["mel"].lengths, np.int32),
            np.asarray(raw["phones"].lengths, np.int32),
            feature_dir.fingerprint(columns, raw),
        )
    if source != "records":
        raise UserError(f"data.source is '{source}'; choose one of: records, directory")
    from mmer_jax.data.builders import feature_records  # imports TensorFlow
    from mmer_jax.data.pipeline import RecordSource

    records = feature_records.prepare(folder, MODALITIES, records_dir)
    return SpeechData(
        feature_dir.read_utterances(records.folder / "utterances.csv"),
        RecordSource(records),
        records.lengths["mel"],
        records.lengths["phones"],
        records.fingerprint,
    )

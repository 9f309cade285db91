"""Normalisation statistics of each fold, from its training rows and nothing else.

A run leaves them in its workdir, in normalization.npz: who predicts has no training rows.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from mmer_jax import distributed
from mmer_jax.data.ahead import read_ahead
from mmer_jax.data.arrays import BadArray, read_npz
from mmer_jax.data.corpus import Corpus, Modality
from mmer_jax.errors import UserError
from mmer_jax.records import write_atomically

FILE = "normalization.npz"
BYTES_AT_ONCE = 128 * 2**20

Statistics = dict[str, tuple[np.ndarray, np.ndarray]]  # name -> mean [F, D], std [F, D], float32
LabelStatistics = tuple[np.ndarray, np.ndarray]  # mean [F], std [F], float32


def fold_statistics(
    corpus: Corpus, train_rows: Sequence[np.ndarray], normalize: str = "all"
) -> Statistics:
    """Mean and standard deviation per feature dimension over the valid steps of training rows.

    Args:
      corpus: read once, whatever the number of folds; each process of a run reads its own shards.
      train_rows: F arrays of rows.
      normalize: "all", "none", or modality names joined by commas. A modality that is not
        normalised gets mean 0 and std 1, and so does the std of a constant dimension.
    """
    names = corpus.spec.names
    chosen = {"all": names, "none": ()}.get(normalize, tuple(normalize.split(",")))
    unknown = set(chosen) - set(names)
    if unknown:
        raise UserError(
            f"data.normalize names {sorted(unknown)}; expected 'all', 'none' or some of "
            f"{','.join(names)}"
        )
    n_folds = len(train_rows)
    member = np.zeros((n_folds, len(corpus)), np.float64)
    for f, rows in enumerate(train_rows):
        member[f, rows] = 1
    mine = corpus.source.rows_of_process(jax.process_index(), jax.process_count())
    used = mine[member[:, mine].any(axis=0)]
    widest = max(m.dim * max(1, m.max_steps) for m in corpus.spec.modalities)
    rows_at_once = max(1, BYTES_AT_ONCE // (8 * widest))
    chunks = np.array_split(used, max(1, -(-len(used) // rows_at_once)))
    sums = {
        m.name: np.zeros((3, n_folds, m.dim)) for m in corpus.spec.modalities if m.name in chosen
    }
    if sums:
        for rows, features in zip(chunks, read_ahead(corpus.stream(chunks)), strict=True):
            for i, m in enumerate(corpus.spec.modalities):
                if m.name in sums:
                    weight = member[:, rows] * corpus.present[rows, i]
                    sums[m.name] += _moment_sums(m, features[m.name], corpus, rows, weight)
    statistics = {}
    for m in corpus.spec.modalities:
        if m.name in sums:
            count, first, second = distributed.total(sums[m.name])
            mean = first / np.maximum(count, 1)
            std = np.sqrt(np.maximum(second / np.maximum(count, 1) - mean**2, 0))
            # Relative to the mean: what is left of a constant dimension is rounding, not spread.
            std[std <= 1e-6 * np.maximum(np.abs(mean), 1e-6)] = 1
        else:
            mean, std = np.zeros((n_folds, m.dim)), np.ones((n_folds, m.dim))
        statistics[m.name] = (mean.astype(np.float32), std.astype(np.float32))
    return statistics


def label_statistics(corpus: Corpus, train_rows: Sequence[np.ndarray]) -> LabelStatistics:
    """([F] mean, [F] std), float32, of a real-valued label in each fold's training rows.

    0 and 1 for classes; the std of a constant label is 1.
    """
    if corpus.spec.is_classification:
        return np.zeros(len(train_rows), np.float32), np.ones(len(train_rows), np.float32)
    values = [corpus.labels[rows, 0].astype(np.float64) for rows in train_rows]
    mean = np.array([v.mean() for v in values], np.float32)
    std = np.array([v.std() or 1.0 for v in values], np.float32)
    return mean, std


def save_statistics(workdir: Path, statistics: Statistics, labels: LabelStatistics) -> None:
    """Write normalization.npz: `mean:NAME` and `std:NAME` [F, D], `label_mean` and `label_std` [F].

    The same statistics give the same bytes.
    """
    arrays = dict(zip(("label_mean", "label_std"), labels, strict=True))
    for name, (mean, std) in statistics.items():
        arrays |= {f"mean:{name}": mean, f"std:{name}": std}
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    write_atomically(workdir / FILE, content.getvalue())


def load_statistics(workdir: Path, names: Sequence[str]) -> tuple[Statistics, LabelStatistics]:
    """What `save_statistics` wrote, of the modalities `names`.

    Raises:
      UserError: the file is missing or damaged.
    """
    path = workdir / FILE
    again = "run the same training command again: it trains nothing anew and writes the file"
    if not path.exists():
        raise UserError(
            f"{path} does not exist; the run ended before it was written, or is older than it: "
            f"{again}"
        )
    try:
        stored = read_npz(path)
        found = {name: (stored[f"mean:{name}"], stored[f"std:{name}"]) for name in names}
        return found, (stored["label_mean"], stored["label_std"])
    except (BadArray, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and {again}") from None


def _moment_sums(
    m: Modality, features: np.ndarray, corpus: Corpus, rows: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """[3, F, D]: counts, sums and sums of squares over steps, for fold weights [F, n]."""
    x = features.astype(np.float64)
    if not m.is_sequence:
        count, first, second = np.ones(len(rows)), x, x**2
    else:  # padding is zeros, so that it adds nothing to the sums
        count, first, second = corpus.lengths[m.name][rows], x.sum(axis=1), (x**2).sum(axis=1)
    counts = np.broadcast_to((weight @ count)[:, None], (len(weight), m.dim))
    return np.stack([counts, weight @ first, weight @ second])

"""Unlabelled feature directories, whose utterances may lack any modality: for databases only."""

import dataclasses
from pathlib import Path

import numpy as np

from mmer_jax import mirror
from mmer_jax.data import feature_dir
from mmer_jax.data.corpus import Corpus, MemorySource, Modality, RawModality
from mmer_jax.data.in_memory import check
from mmer_jax.errors import UserError, shorten


def read_unlabelled(roots: tuple[str, ...], corpus: Corpus) -> Corpus | None:
    """The utterances of some directories in the shapes of `corpus`, none of them labelled.

    A directory needs utterances.csv with `utt_id` and one modality at least. What is missing or not
    finite is absent; an utterance with nothing usable is left out.

    Args:
      roots: `data.unlabelled`.
      corpus: that is trained on.

    Raises:
      UserError: features of other shapes, or an utterance of the corpus or of another directory:
        in a database it could be a test utterance.
    """
    if not roots:
        return None
    parts: list[dict[str, RawModality]] = []
    known = {str(i) for i in corpus.ids}
    ids: list[str] = []
    for root in (mirror.features(str(place), corpus.spec.names) for place in roots):
        found, raw = _read(root, corpus)
        twice = [i for i in found if i in known]
        if twice:
            raise UserError(
                f"data.unlabelled: {root} has utterance(s) of the corpus or of another directory: "
                f"{shorten(twice)}. A database must not hold test utterances: remove their rows, "
                "or rename them if they are other utterances."
            )
        known |= set(found)
        ids += found
        parts.append(raw)
    raw = {m.name: _joined(m, [part[m.name] for part in parts]) for m in corpus.spec.modalities}
    present = np.stack([modality.finite_rows() for modality in raw.values()], axis=1)
    labels = np.full(len(ids), -1 if corpus.spec.is_classification else np.nan)
    return dataclasses.replace(
        corpus,
        ids=np.array(ids),
        columns={},
        labels=labels.astype(corpus.labels.dtype),
        present=present,
        lengths={k: x.lengths.astype(np.int32) for k, x in raw.items() if x.lengths is not None},
        dtypes={name: x.features.dtype for name, x in raw.items()},
        source=MemorySource(raw),
        fingerprint=feature_dir.fingerprint({"utt_id": np.array(ids)}, raw),
    )


def _read(root: Path, corpus: Corpus) -> tuple[list[str], dict[str, RawModality]]:
    """(ids, every modality of the corpus, NaN where absent) of the usable utterances."""
    if not root.is_dir():
        raise UserError(f"data.unlabelled: feature directory {root} does not exist")
    ids = feature_dir.read_utterances(root / "utterances.csv")["utt_id"]
    given = {
        name: feature_dir.read_modality(root, name, ids)
        for name in corpus.spec.names
        if (root / f"{name}.npz").exists()
    }
    if not given:
        raise UserError(f"data.unlabelled: {root} has none of: {', '.join(corpus.spec.names)}")
    check(given, corpus.spec)
    usable = np.flatnonzero(np.any([m.finite_rows() for m in given.values()], axis=0))
    raw = {
        m.name: _rows(given[m.name], usable) if m.name in given else _absent(m, len(usable))
        for m in corpus.spec.modalities
    }
    return [str(i) for i in ids[usable]], raw


def _rows(raw: RawModality, rows: np.ndarray) -> RawModality:
    if raw.lengths is None:
        return RawModality(raw.features[rows], None, raw.source)
    lengths = raw.lengths[rows]
    step = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return RawModality(
        raw.features[np.repeat(raw.starts[rows], lengths) + step], lengths, raw.source
    )


def _absent(m: Modality, count: int) -> RawModality:
    """NaN, one step a sequence."""
    lengths = np.ones(count, np.int64) if m.is_sequence else None
    return RawModality(np.full((count, m.dim), np.nan, np.float16), lengths, m.name)


def _joined(m: Modality, parts: list[RawModality]) -> RawModality:
    lengths = [part.lengths for part in parts if part.lengths is not None]
    return RawModality(
        np.concatenate([part.features for part in parts]),
        np.concatenate(lengths) if lengths else None,
        m.name,
    )

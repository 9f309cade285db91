"""Utterances with holes, as arrays in memory: what `Predictor.predict` is given.

Whatever is absent becomes what it is in a feature directory: a vector, or a step, of NaN.
"""

from collections.abc import Mapping

import numpy as np

from mmer_jax.data.corpus import CorpusSpec, Modality, RawModality
from mmer_jax.errors import UserError, shorten


def from_arrays(features: Mapping[str, object], spec: CorpusSpec) -> dict[str, RawModality]:
    """The modalities that are given, in float32.

    Args:
      features: modality -> [N, D], or N arrays [D], for a vector modality; N arrays [T, D], each
        with its own T, for a sequence. None in place of an array, a sequence without steps and
        numbers that are not finite: absent for this utterance. None in place of all, or a modality
        left out: absent for all.
      spec: of the model.

    Raises:
      UserError: an unknown modality, an array of another shape, or modalities that differ in N.
    """
    if not isinstance(features, Mapping):
        raise UserError(
            f"features are a {type(features).__name__}; expected a mapping from modality to "
            f"arrays, of: {', '.join(spec.names)}"
        )
    unknown = [str(name) for name in features if name not in spec.names]
    if unknown:
        raise UserError(
            f"unknown modality {shorten(unknown)}; this model has: {', '.join(spec.names)}"
        )
    raw = {
        m.name: _packed(m, features[m.name])
        for m in spec.modalities
        if features.get(m.name) is not None
    }
    check(raw, spec)
    return raw


def check(raw: Mapping[str, RawModality], spec: CorpusSpec) -> None:
    """Refuse modalities whose shapes are not the model's, or that differ in N."""
    if not raw:
        raise UserError(f"no modality is given; expected some of: {', '.join(spec.names)}")
    for m in spec.modalities:
        if m.name not in raw:
            continue
        found = raw[m.name]
        if m.is_sequence != (found.lengths is not None):
            expected = "a sequence of steps" if m.is_sequence else "one vector"
            raise UserError(
                f"{found.source}: expected {expected} for each utterance, as in training "
                f"({_described(m)}); found {'one vector' if m.is_sequence else 'sequences'}"
            )
        if found.features.shape[1] != m.dim:
            raise UserError(
                f"{found.source}: {found.features.shape[1]} numbers "
                f"{'a step' if m.is_sequence else 'an utterance'}, expected {m.dim} as in training"
            )
    counts = {modality.source: len(modality) for modality in raw.values()}
    if len(set(counts.values())) > 1:
        raise UserError(
            "modalities differ in their number of utterances: "
            + ", ".join(f"{source}: {count}" for source, count in counts.items())
            + "; give None for an utterance that lacks one"
        )


def _packed(m: Modality, given) -> RawModality:
    source = f"modality '{m.name}'"
    if hasattr(given, "__array__"):
        given = np.asarray(given)
        if given.ndim < 2:
            raise UserError(
                f"{source} has shape {given.shape}, expected {_described(m)}; of a single "
                "utterance give a list of one array"
            )
    try:
        items = list(given)
    except TypeError:
        raise UserError(f"{source} is a {type(given).__name__}, expected {_described(m)}") from None
    blocks = [_steps(m, f"{source}, utterance {i}", item) for i, item in enumerate(items)]
    empty = np.zeros((0, m.dim), np.float32)
    features = np.concatenate([empty, *blocks])
    lengths = np.array([len(block) for block in blocks], np.int64) if m.is_sequence else None
    return RawModality(features, lengths, source)


def _steps(m: Modality, source: str, item) -> np.ndarray:
    """[T, D] of a sequence, [1, D] of a vector."""
    absent = np.full((1, m.dim), np.nan, np.float32)
    if item is None:
        return absent
    try:
        with np.errstate(over="ignore"):  # beyond float32: infinite, and so absent
            x = np.asarray(item, np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"{source} is no array of numbers: {error}") from None
    if x.ndim != (2 if m.is_sequence else 1) or x.shape[-1] != m.dim:
        expected = f"[T, {m.dim}]" if m.is_sequence else f"[{m.dim}]"
        raise UserError(f"{source} has shape {list(x.shape)}, expected {expected} as in training")
    if not m.is_sequence:
        return x[None]
    return x if len(x) else absent


def _described(m: Modality) -> str:
    if m.is_sequence:
        return f"a list of N arrays [T, {m.dim}]"
    return f"an array [N, {m.dim}]"

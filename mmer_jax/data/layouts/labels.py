"""Labels and ids of the releases, as utterances.csv has them."""

import collections
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax.data import arrays
from mmer_jax.data.paths import check_names, file_inside
from mmer_jax.errors import UserError, shorten


def decimal(value: Any) -> str | None:
    """A number as float32 holds it ('2.4', '3.0'); '' for NaN; None for what is no number."""
    if type(value) not in (int, float) or abs(value) > np.finfo(np.float32).max:
        return None
    return "" if value != value else np.format_float_positional(np.float32(value), trim="0")


def as_text(array: Any) -> list[str]:
    """Strings, or UTF-8 bytes, in any shape, as a list; raises BadArray."""
    try:
        flat = np.asarray(array).reshape(-1).tolist()
        return [x.decode("utf-8") if isinstance(x, bytes) else str(x) for x in flat]
    except UnicodeDecodeError as error:
        raise arrays.BadArray(f"holds text that is not UTF-8: {error}") from None


def check_ids(ids: Iterable[str], source: str) -> None:
    """Refuse an empty list of utterances, ids that lead elsewhere and ids that are there twice."""
    counts = collections.Counter(ids)
    if not counts:
        raise UserError(f"{source} lists no utterance")
    check_names(counts, source)
    twice = sorted(i for i, count in counts.items() if count > 1)
    if twice:
        raise UserError(f"{source}: {len(twice)} duplicate utterance id(s): {shorten(twice)}")


def read_ids(root: Path, path: Path) -> list[str]:
    """The ids in an .npy file of strings or bytes, in a row or a column."""
    try:
        ids = as_text(arrays.read_npy(file_inside(root, path), arrays.TEXT))
    except arrays.BadArray as error:
        raise UserError(f"{path} {error}") from None
    check_ids(ids, str(path))
    return ids


def read_classes(root: Path, path: Path, ids: Sequence[str], names: Sequence[str]) -> list[str]:
    """The classes of the utterances `ids` in an .npy file.

    It is one-hot [n, C], or class numbers [n] or [n, 1]; `names` are the classes in that order.
    """
    try:
        labels = arrays.read_npy(file_inside(root, path), arrays.NUMBERS)
    except arrays.BadArray as error:
        raise UserError(f"{path} {error}") from None
    if labels.ndim == 1:
        labels = labels[:, None]
    if labels.ndim != 2 or labels.shape[1] not in (1, len(names)):
        raise UserError(
            f"{path} has shape {list(labels.shape)}, expected [n] or [n, {len(names)}] for the "
            f"classes {', '.join(names)}"
        )
    if len(labels) != len(ids):
        raise UserError(f"{path} has {len(labels)} rows, its int2name has {len(ids)}")
    if labels.shape[1] == 1:
        numbers = labels[:, 0]
        good = (numbers >= 0) & (numbers < len(names)) & (numbers == np.floor(numbers))
    else:
        numbers = labels.argmax(axis=1)
        good = np.isin(labels, (0, 1)).all(axis=1) & ((labels == 1).sum(axis=1) == 1)
    if not good.all():
        bad = [f"{ids[i]} has {labels[i].tolist()}" for i in np.flatnonzero(~good).tolist()]
        raise UserError(
            f"{path}: {len(bad)} label(s) that are neither one-hot nor one of 0 to "
            f"{len(names) - 1}: {shorten(bad)}"
        )
    return [names[int(number)] for number in numbers]

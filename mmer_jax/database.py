"""Databases of hidden states in a workdir: whose rows they are, and which encoder made them.

    databases/<group of trials>/<position>.safetensors

Arrays are of one length, the ids of their rows and the encoder's fingerprint stand in the header.
The format holds numbers only, and shapes are known before an array is read.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from mmer_jax.errors import UserError, shorten
from mmer_jax.records import write_atomically

Arrays = dict[str, np.ndarray]
AGAIN = "delete it and run the same training command again"


class Database(NamedTuple):
    """Rows of a database.

    Attributes:
      ids: [R] utterance ids.
      arrays: name -> [R, ...].
    """

    ids: list[str]
    arrays: Arrays


def fingerprint(params: Any) -> str:
    """Of an encoder: the same names, shapes and numbers, the same fingerprint."""
    digest = hashlib.blake2b(digest_size=12)
    for place, leaf in jax.tree_util.tree_leaves_with_path(params):
        leaf = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(place)} {leaf.dtype} {leaf.shape}\0".encode())
        digest.update(leaf.data)
    return digest.hexdigest()


def save(path: Path, database: Database, *, encoder: str) -> None:
    """Write a database whose arrays the encoder with this fingerprint made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.ascontiguousarray(x) for name, x in database.arrays.items()}
    ids = json.dumps(database.ids)
    header = {"encoder": encoder, "ids": ids, "digest": _digest(ids, arrays)}
    write_atomically(path, to_bytes(arrays, metadata=header))


def load(
    path: Path,
    *,
    encoder: str,
    shapes: Mapping[str, tuple[int, ...]],
    ids: Sequence[str] | None = None,
) -> Database:
    """What `save` wrote.

    Args:
      encoder: fingerprint of the encoder that queries are made with.
      shapes: name -> shape of a row, of all arrays that are expected.
      ids: the rows that are expected, in order; None: any.

    Raises:
      UserError: the file is missing, damaged, of another encoder, other rows or other shapes.
    """
    try:
        with safe_open(path, "np") as file:
            header = file.metadata() or {}
            if not {"encoder", "ids"} <= header.keys():
                raise ValueError("no encoder and ids in its header")
            if header["encoder"] != encoder:
                raise UserError(
                    f"{path} is of encoder {header['encoder']}, the parameters in checkpoints/ "
                    f"are {encoder}: neighbours would mean nothing; {AGAIN}"
                )
            stored = json.loads(header["ids"])
            if not isinstance(stored, list) or not all(isinstance(i, str) for i in stored):
                raise ValueError("its ids are no list of names")
            _check_ids(path, stored, ids)
            expected = {name: (len(stored), *shape) for name, shape in shapes.items()}
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
            if found != expected:
                raise UserError(f"{path} has arrays {found}, expected {expected}; {AGAIN}")
            arrays = {name: file.get_tensor(name) for name in expected}
            digest = _digest(header["ids"], arrays)
            if header.get("digest", digest) != digest:  # an older database has none
                raise ValueError("its content does not fit its digest")
            return Database(stored, arrays)
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; predictions need it. Run the same training command again"
        ) from None
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}); {AGAIN}") from None


def _digest(ids: str, arrays: Arrays) -> str:
    return fingerprint({"ids": np.frombuffer(ids.encode(), np.uint8), "arrays": arrays})


def _check_ids(path: Path, stored: list[str], ids: Sequence[str] | None) -> None:
    if ids is None or stored == list(ids):
        return
    more, fewer = sorted(set(stored) - set(ids)), sorted(set(ids) - set(stored))
    raise UserError(
        f"{path} holds other utterances than expected, or in another order; not expected: "
        f"{shorten(more) or 'none'}; not there: {shorten(fewer) or 'none'}; {AGAIN}"
    )

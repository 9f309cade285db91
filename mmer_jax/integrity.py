"""That what is read is what was written: digests of a folder's files, JSON that vouches for itself.

A digest finds what time and broken disks do to files. It is no defence against somebody who
changes a file on purpose, and can write the digest anew.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmer_jax.records import write_atomically

Digests = dict[str, list]  # a file's place in its folder -> [bytes, digest]


class Damaged(Exception):
    """A file is not as it was written; the words follow its name."""


def digests(folder: Path) -> Digests:
    """Of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): [path.stat().st_size, _digest(path)] for path in files}


def changes(folder: Path, expected: Digests) -> list[str]:
    """What is no longer as in `expected`, each file by its full name; [] if nothing is."""
    found = []
    for name, (size, digest) in expected.items():
        path = folder / name
        if not path.is_file():
            found.append(f"{path} is missing")
        elif path.stat().st_size != size:
            found.append(f"{path} has {path.stat().st_size} bytes instead of {size}")
        elif _digest(path) != digest:
            found.append(f"{path} has other bytes than were written")
    return found


def digest_of(content: bytes) -> str:
    """Of bytes in memory, as of a file with them."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def write_signed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object, with a digest of itself as a last key, atomically."""
    signed = {**content, "digest": digest_of(_canonical(content))}
    write_atomically(path, json.dumps(signed, indent=1) + "\n")


def read_signed(path: Path) -> dict[str, Any]:
    """What `write_signed` wrote; a file without a digest (an older one) is taken as it is.

    Raises:
      Damaged: it is no JSON object, or another one than was written.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Damaged(f"is damaged ({error})") from None
    if not isinstance(content, dict):
        raise Damaged("is damaged (no JSON object)")
    digest = content.pop("digest", None)
    if digest not in (None, digest_of(_canonical(content))):
        raise Damaged("is damaged (its content does not fit its digest)")
    return content


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True).encode()

"""A folder that is there as a whole or not at all, whenever its maker is killed."""

import glob
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def write_whole(folder: Path, write: Callable[[Path], T], family: str) -> T:
    """What `write` returns, after what it has written is moved to `folder`, in place of any before.

    Args:
      write: makes the folder it is given, of the same name in another place.
      family: the caller holds the lock of all folders of this name; what a killed maker of one of
        them has left is cleared away.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".building-{family}-"
    for leftover in folder.parent.glob(f"{glob.escape(prefix)}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder.parent) as temporary:
        unfinished = Path(temporary) / folder.name
        found = write(unfinished)
        if folder.exists():  # unfinished, or the same by another process
            shutil.rmtree(folder)
        unfinished.rename(folder)
    return found

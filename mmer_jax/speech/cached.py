"""Folders in a cache: made once, whole or not at all, whoever else asks for them meanwhile."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from mmer_jax.records import one_at_a_time


def made_once(folder: Path, last: str, make: Callable[[Path], None]) -> Path:
    """`folder`, made when it is not there yet; another run that wants it too waits.

    Args:
      last: a file that is there when the folder is whole.
      make: writes a new folder of that name, in another place.
    """
    if not (folder / last).exists():
        with one_at_a_time(folder.with_name(f".{folder.name}.lock")):
            if not (folder / last).exists():
                _make(folder, make)
    return folder


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(prefix=".making-", dir=folder.parent) as temporary:
        unfinished = Path(temporary) / folder.name
        make(unfinished)
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.rename(folder)

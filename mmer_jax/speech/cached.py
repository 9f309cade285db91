"""Folders in a cache: made once, whole or not at all, whoever else asks for them meanwhile."""

from collections.abc import Callable
from pathlib import Path

from mmer_jax.records import one_at_a_time
from mmer_jax.whole_folder import write_whole


def made_once(folder: Path, last: str, make: Callable[[Path], None]) -> Path:
    """`folder`, made when it is not there yet; another run that wants it too waits.

    Args:
      last: a file that is there when the folder is whole.
      make: writes a new folder of that name, in another place.
    """
    if not (folder / last).exists():
        with one_at_a_time(folder.with_name(f".{folder.name}.lock")):
            if not (folder / last).exists():
                write_whole(folder, make, folder.name)
    return folder

"""Names and links that must not lead out of the folder they stand in."""

from collections.abc import Iterable
from pathlib import Path

from mmer_jax.errors import UserError, shorten

LONGEST_NAME = 200  # bytes; file systems allow 255, with an ending


def file_inside(root: Path, path: Path) -> Path:
    """`path`, a regular file that lies in `root` when its links are followed.

    Raises:
      UserError: there is no such file, it is none (a folder, a pipe), or it lies elsewhere.
    """
    try:
        real, place = path.resolve(strict=True), root.resolve()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, RuntimeError) as error:  # links in a circle, among others
        raise UserError(f"{path} cannot be opened: {error}") from None
    if not real.is_relative_to(place):
        raise UserError(f"{path} links to {real}, which is outside of {root}; put the file there")
    if not real.is_file():
        raise UserError(f"{path} is not a file")
    return path


def check_names(names: Iterable[str], source: str) -> None:
    """Refuse utterance ids that could not be the name of a file in a folder."""
    bad = [name for name in names if not _is_name(name)]
    if bad:
        raise UserError(
            f"{source}: {len(bad)} id(s) that cannot be file names (a slash, '..', a control "
            f"character, none or more than {LONGEST_NAME} bytes): "
            f"{shorten([ascii(name[:40]) for name in bad])}"
        )


def _is_name(name: str) -> bool:
    if name in ("", ".", "..") or not name.isprintable() or set(name) & set("/\\"):
        return False
    return len(name.encode("utf-8", "replace")) <= LONGEST_NAME

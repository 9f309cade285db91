"""Workdirs and features in a bucket (gs://...): a copy on this machine, brought there and back.

A bucket has no locks, no renames and no appending, which a workdir lives on. So a run works on a
copy: what the bucket holds comes first, and after every checkpoint what has changed goes back.
The bucket has the same files under the same names, and mirror.json, which says what they are: it
is written after new files and before old ones are deleted, so that a run that ends in between
leaves the checkpoints of before (files that are written again, such as metrics.jsonl, may be newer,
and are cut back by the checkpoint that is resumed). A feature directory in a bucket is only read:
utterances.csv and *.npz.

Paths are etils.epath's; for gs:// it wants gcsfs (extra `gcs`).
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mmer_jax.errors import Transient, UserError
from mmer_jax.records import LOCK, PREPARING, one_at_a_time, write_atomically

os.environ.setdefault("EPATH_USE_TF", "false")  # not the TensorFlow that records need

COPIES = "~/.cache/mmer_jax/buckets"
INDEX = "mirror.json"  # of the bucket: file -> [bytes, digest]
OF = ".mirror_of.json"  # of the copy: where it belongs, and what each file was when they agreed
NOT_SHARED = (LOCK, PREPARING, OF)  # by name; what belongs to this machine
AT_ONCE = 8

State = dict[str, list]  # file -> [bytes, digest, time of change in ns]


def folder(place: str, *, copies: str = COPIES) -> Path:
    """The folder itself, or the copy of a workdir in a bucket, as the bucket has it now.

    Raises:
      UserError: the bucket cannot be read.
    """
    if "://" not in place:
        return Path(place).expanduser()
    copy = _copy_of(place, copies)
    with _unless_a_run_has_it(copy) as free:
        if free:
            _renew(copy, place)
    return copy


@contextlib.contextmanager
def _unless_a_run_has_it(copy: Path) -> Iterator[bool]:
    """Whether no run works on the copy; what it has not yet brought back would be lost."""
    if not (copy / LOCK).exists():
        yield True
        return
    with (copy / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        yield free


def renew(workdir: Path) -> None:
    """What the bucket of a copy has now; nothing for any other folder."""
    if copy := _copy_with(workdir):
        _renew(copy, _place(copy))


def _renew(copy: Path, place: str) -> None:
    with one_at_a_time(copy.with_name(copy.name + ".lock")):
        state = _state(copy)
        theirs = json.loads(_asked(place, lambda: _read(_remote(place, INDEX)) or b"{}"))
        mine = {name: entry[:2] for name, entry in _looked_at(copy, state).items()}
        wanted = [name for name, entry in theirs.items() if mine.get(name) != entry]
        _asked(place, lambda: _each(lambda name: _bring(place, copy, name), wanted))
        for name in mine.keys() - theirs.keys():
            (copy / name).unlink()
        _remember(copy, place, _looked_at(copy, {}))


def features(place: str, modalities: Iterable[str], *, copies: str = COPIES) -> Path:
    """The feature directory itself, or its copy from a bucket; unchanged files stay."""
    if "://" not in place:
        return Path(place).expanduser()
    copy = _copy_of(place, copies)
    with one_at_a_time(copy.with_name(copy.name + ".lock")):
        names = ["utterances.csv", *(f"{name}.npz" for name in modalities)]
        known: dict[str, Any] = _state(copy)
        found = _asked(place, lambda: {name: _stamp(_remote(place, name)) for name in names})
        changed = [n for n in names if found[n] and known.get(n) != found[n]]
        _asked(place, lambda: _each(lambda name: _bring(place, copy, name), changed))
        for name in (n for n in names if not found[n]):
            (copy / name).unlink(missing_ok=True)  # it has been removed from the bucket
        _remember(copy, place, {name: stamp for name, stamp in found.items() if stamp})
    return copy


def publish(workdir: Path) -> None:
    """Bring what has changed in a copy to its bucket; nothing for any other folder.

    Args:
      workdir: the copy, or a run's folder in it (`--each`).

    Raises:
      UserError: the bucket cannot be written.
    """
    copy = _copy_with(workdir)
    if copy is None:
        return
    place, before = _place(copy), _state(copy)
    now = _looked_at(copy, before)
    changed = [n for n, entry in now.items() if before.get(n, [0, ""])[:2] != entry[:2]]
    is_last = {n: n.endswith(".json") for n in changed}  # they make other files count

    def bring() -> None:
        for last in (False, True):
            _each(lambda n: _send(copy, place, n), [n for n in changed if is_last[n] == last])
        index = {name: entry[:2] for name, entry in now.items()}
        _remote(place, INDEX).write_text(json.dumps(index))
        _each(lambda n: _remote(place, n).unlink(missing_ok=True), sorted(before.keys() - now))

    if changed or before.keys() - now:
        _asked(place, bring)
        _remember(copy, place, now)


def _copy_with(folder: Path) -> Path | None:
    """The copy of a bucket that a folder is, or lies in."""
    folder = folder.resolve()
    return next((place for place in (folder, *folder.parents) if (place / OF).exists()), None)


def _copy_of(place: str, copies: str) -> Path:
    digest = hashlib.sha256(place.rstrip("/").encode()).hexdigest()[:12]
    copy = Path(copies).expanduser() / digest / place.rstrip("/").rpartition("/")[2]
    copy.mkdir(parents=True, exist_ok=True)
    return copy


def _asked(place: str, action: Callable[[], Any]) -> Any:
    """What a bucket answers; whatever goes wrong there is for a person to mend."""
    try:
        return action()
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f'{place}: {error}; pip install "mmer_jax[gcs]"') from None
    except Exception as error:
        raise Transient(
            f"{place} cannot be reached ({type(error).__name__}: {error}); check the address, the "
            "network and the credentials (gcloud auth application-default login), and run the same "
            "command again"
        ) from error


def _remote(place: str, name: str):
    from etils import epath  # takes a moment to import

    return epath.Path(place) / name


def _read(path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _stamp(path) -> list | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return [found.length, found.mtime]


def _each(action: Callable[[str], Any], names: Iterable[str]) -> None:
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="bucket") as threads:
        list(threads.map(action, names))


def _bring(place: str, copy: Path, name: str) -> None:
    target = copy / name
    if copy.resolve() not in target.resolve().parents:
        raise UserError(f"{place}/{INDEX} names {name!r}, which lies outside of it")
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, _remote(place, name).read_bytes())


def _send(copy: Path, place: str, name: str) -> None:
    remote = _remote(place, name)
    remote.parent.mkdir(parents=True, exist_ok=True)
    remote.write_bytes((copy / name).read_bytes())


def _place(copy: Path) -> str:
    return json.loads((copy / OF).read_text(encoding="utf-8"))["place"]


def _state(copy: Path) -> State:
    try:
        return json.loads((copy / OF).read_text(encoding="utf-8"))["files"]
    except (FileNotFoundError, ValueError, KeyError):
        return {}


def _remember(copy: Path, place: str, files: State) -> None:
    write_atomically(copy / OF, json.dumps({"place": place.rstrip("/"), "files": files}))


def _looked_at(copy: Path, known: State) -> State:
    """Every file of a copy; digests of unchanged ones are taken from `known`."""
    found: State = {}
    for path in sorted(copy.rglob("*")):
        name = str(path.relative_to(copy))
        if not path.is_file() or path.name in NOT_SHARED or name.endswith(".tmp"):
            continue
        status = path.stat()
        size, changed = status.st_size, status.st_mtime_ns
        entry = known.get(name)
        if entry is None or entry[0] != size or entry[2] != changed:
            digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
            entry = [size, digest, changed]
        found[name] = entry
    return found

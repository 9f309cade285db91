"""What a run writes down and shows while it trains: metrics.jsonl, progress, TensorBoard."""

import contextlib
import fcntl
import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from mmer_jax.errors import UserError, is_disk_full

METRICS = "metrics.jsonl"
LOCK = "lock"  # of a workdir (workdir.locked)
PREPARING = "lock.prepare"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file as a whole, so that a reader or a crash never sees half of it."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if is_disk_full(error):
            raise UserError(
                f"disk full while writing {path}; the earlier version of it is intact. Free space "
                "and run the same command again."
            ) from error
        raise


@contextlib.contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Wait until no other process holds the file `lock`, and hold it."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("a")
    except OSError as error:
        full = "disk full: " if is_disk_full(error) else ""
        raise UserError(f"{full}{lock} cannot be made: {error}") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_first() -> bool:
    from mmer_jax import distributed  # imports JAX, which importers and others do without

    return distributed.is_first()


class MetricsLog:
    """metrics.jsonl: one line per trial and epoch, the record of truth.

    Lines carry `group` and `epochs_done`, so that a resumed run drops what the checkpoint it
    resumes from has not seen.

    Args:
      workdir: of the run.
      tensorboard: whether to write TensorBoard's files as well.
      by_group: each group's lines go to metrics/GROUP.jsonl, because other workers train other
        groups at the same time; `gather` brings them together.
    """

    def __init__(self, workdir: Path, *, tensorboard: bool = False, by_group: bool = False):
        self._whole, self._parts, self._by_group = workdir / METRICS, workdir / "metrics", by_group
        self._board = None
        if tensorboard and _is_first():
            try:
                from flax.metrics.tensorboard import SummaryWriter  # imports TensorFlow
            except ImportError as error:
                raise UserError(
                    f"log.tensorboard needs: pip install tensorboard ({error})"
                ) from None
            self._board = SummaryWriter(str(workdir / "tensorboard"), auto_flush=False)

    def rewind(self, group: str, epochs_done: int) -> int:
        """Drop lines of `group` after `epochs_done`, and damaged ones.

        Returns how many were damaged, but for a last line that a crash cut short.
        """
        path = self._path(group)
        source = path if path.exists() else self._whole  # a group that was begun without workers
        if not source.exists():
            return 0
        kept, damaged = [], []
        lines = source.read_text(encoding="utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                is_mine = record["group"] == group
                if record["epochs_done"] <= epochs_done if is_mine else not self._by_group:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError):
                damaged.append(number)
        write_atomically(path, "".join(kept))
        return sum(number < len(lines) for number in damaged)

    def write(self, records: Sequence[Mapping[str, object]]) -> None:
        """Append lines, all of one group."""
        if not records:
            return
        path = self._path(str(records[0]["group"]))
        text = "".join(json.dumps(record) + "\n" for record in records)
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            if is_disk_full(error):
                raise UserError(
                    f"disk full while writing {path}; checkpoints are intact. Free space and "
                    "run the same command again."
                ) from error
            raise
        if self._board is not None:
            self._write_board(records)

    def gather(self, groups: Collection[str] | None = None) -> None:
        """Bring the lines of groups that nobody trains any more (None: of all) into metrics.jsonl.

        Ended in the middle, it does the same again when it is called again.
        """
        found = sorted(self._parts.glob("*.jsonl"))
        parts = {path.stem: path for path in found if groups is None or path.stem in groups}
        if not parts:
            return
        lines = [line for line in _lines(self._whole) if _group_of(line) not in (None, *parts)]
        for path in parts.values():
            lines += [line for line in _lines(path) if _group_of(line) == path.stem]
        write_atomically(self._whole, "".join(lines))
        for path in parts.values():
            path.unlink()
        with contextlib.suppress(OSError):  # there are others
            self._parts.rmdir()

    def _path(self, group: str) -> Path:
        if not self._by_group:
            return self._whole
        self._parts.mkdir(exist_ok=True)
        return self._parts / f"{group}.jsonl"

    def _write_board(self, records) -> None:
        assert self._board is not None
        for record in records:
            place = f"{record['stage']}/fold{record['fold']}_seed{record['seed']}"
            for name, value in record.items():
                if isinstance(value, float):
                    self._board.scalar(f"{place}/{name}", value, record["epoch"])
        self._board.flush()


def _lines(path: Path) -> list[str]:
    """The lines of a file of metrics; none where there is no file."""
    if not path.exists():
        return []
    return [f"{x}\n" for x in path.read_text(encoding="utf-8", errors="replace").splitlines()]


def _group_of(line: str) -> str | None:
    """The group that a line of metrics is about; None of a damaged line."""
    try:
        return str(json.loads(line)["group"])
    except (ValueError, KeyError, TypeError):
        return None


class NotedProgress(Progress):
    """A progress bar with a line of text below it."""

    note = ""

    def get_renderables(self):
        yield self.make_tasks_table(self.tasks)
        yield Text(self.note)


class Reporter:
    """Progress for a person: a live bar in a terminal, otherwise one line per epoch.

    Args:
      console: where to.
      epochs: stage -> how many are to be trained, of all groups together.
      done: how many epochs earlier runs have finished besides.
    """

    def __init__(self, console: Console, epochs: Mapping[str, int], done: int = 0):
        self.console = console
        self._left = Counter(epochs)
        self._seconds: dict[str, list[float]] = {}  # of each stage's epochs
        self._group = ""
        self._progress: NotedProgress | None = None
        if console.is_terminal:
            self._progress = NotedProgress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TextColumn("epochs, ETA {task.fields[eta]}"),
                console=console,
            )
            total = done + self._left.total()
            self._task = self._progress.add_task("compiling", total=total, completed=done, eta="-")

    def __enter__(self) -> "Reporter":
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *exception) -> None:
        if self._progress is not None:
            self._progress.stop()

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def of_group(self, number: int, count: int) -> None:
        """What follows belongs to group `number` of `count`."""
        self._group = f"group {number}/{count} " if count > 1 else ""

    def skip(self, stage: str, epochs: int) -> None:
        """Epochs of a stage that an earlier run has done."""
        self._left[stage] -= epochs
        if self._progress is not None:
            self._progress.advance(self._task, epochs)

    def epoch(self, stage: str, epoch: int, of: int, note: str, seconds: float) -> None:
        """One more epoch is done."""
        self._left[stage] -= 1
        self._seconds.setdefault(stage, []).append(seconds)
        eta = time.strftime("%H:%M:%S", time.gmtime(self._seconds_left(stage)))
        if self._progress is not None:
            self._progress.advance(self._task)
            self._progress.update(
                self._task, description=f"{self._group}{stage} {epoch}/{of}", eta=eta
            )
            self._progress.note = note
            return
        self.say(f"{self._group}{stage} epoch {epoch}/{of}  {note}  ETA {eta}")

    def _seconds_left(self, stage: str) -> float:
        """Each stage at its own pace, of its last five epochs; one not seen yet at `stage`'s."""
        pace = {name: statistics.median(times[-5:]) for name, times in self._seconds.items()}
        return sum(left * pace.get(name, pace[stage]) for name, left in self._left.items())

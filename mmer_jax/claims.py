"""Claims: which of several workers on one workdir does what.

    claims/workers/TOKEN   a worker that lives; it touches the file every few seconds
    claims/DIGEST.N        a claim on a name; the highest N counts; an empty one gives the name back

A claim is a link to a complete file under a name that does not exist yet: of several workers one
succeeds, on NFS too. Claims are never renamed or removed, so there is nothing to race for. A name
is free again when its last holder has given it back or is dead, and dead is who has no heartbeat
file: a worker removes its own at the end, and others remove that of a worker which has been silent
for too long or whose process is known to be gone. Nobody comes back from that: a worker taken for
dead by mistake (suspended, cut off) finds its file missing before it writes a checkpoint, and
stops.

Times are those of the file system: the clocks of the machines need not agree.
"""

import dataclasses
import errno
import hashlib
import json
import os
import secrets
import socket
import threading
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from mmer_jax.errors import Transient, UserError
from mmer_jax.records import write_atomically

SILENT = 6  # heartbeats that a worker misses before it is taken for dead
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclasses.dataclass(frozen=True)
class Worker:
    """Who a worker is.

    Attributes:
      index: as given on the command line; two workers may have the same.
      host, pid: for people.
      machine: where `pid` means this process: boot, process namespace and user; "": unknown.
      began: start of the process in ticks since boot, as process numbers are used again.
      job, restarts: of SLURM, which ends a job before it starts it again; "" and 0 elsewhere.
      interval: seconds between its heartbeats.
      token: its own, never used again.
    """

    index: int
    host: str
    pid: int
    machine: str
    began: str
    job: str
    restarts: int
    interval: float
    token: str

    def __str__(self) -> str:
        return f"worker {self.index} ({self.host}, process {self.pid})"


class Claims:
    """This worker's claims in a workdir; a context, at whose end they are free again.

    Args:
      workdir: of the run, on a file system that all workers share.
      index: of this worker.
      interval: seconds between heartbeats.
      say: is told of workers that are found dead.
    """

    def __init__(self, workdir: Path, index: int, interval: float, say: Callable[[str], None]):
        self.me = _this_process(index, interval)
        self.say = say
        self._folder = workdir / "claims"
        self._heartbeat = self._folder / "workers" / self.me.token
        self._mine = self._folder / f"{self.me.token}.worker"  # what claims are links to
        self._nobody = self._folder / f"{self.me.token}.nobody"  # and those that give back
        self._held: dict[str, int] = {}  # digest -> N
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="heartbeat")

    def __enter__(self) -> "Claims":
        self._heartbeat.parent.mkdir(parents=True, exist_ok=True)
        self._nobody.touch()
        who = json.dumps(dataclasses.asdict(self.me))
        for path in (self._mine, self._heartbeat):
            write_atomically(path, who)
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._ended.set()
        self._thread.join()
        self._bury(self.me)

    def take(self, names: Collection[str]) -> bool:
        """Claim all of `names`, or none if another worker holds one of them."""
        self.check()
        highest = self._highest()
        # Links stay for ever: none where it is known that one of the names is not to be had.
        if any(self._holder(digest, highest.get(digest, 0)) for digest in map(_digest, names)):
            return False
        taken: list[str] = []
        for name in sorted(set(names)):  # in one order: of workers who want the same, one gets on
            digest = _digest(name)
            last = highest.get(digest, 0)
            if not self._link(self._mine, digest, last + 1):
                self.release(taken)
                return False
            self._held[digest] = last + 1
            taken.append(name)
        return True

    def release(self, names: Iterable[str]) -> None:
        """Give back what this worker holds."""
        for digest in map(_digest, names):
            self._link(self._nobody, digest, self._held.pop(digest) + 1)

    def holders(self, names: Iterable[str]) -> dict[str, tuple[Worker, float]]:
        """Name -> the living worker who holds it and the time of its last heartbeat."""
        highest, found = self._highest(), {}
        for name in names:
            digest = _digest(name)
            holder = self._holder(digest, highest.get(digest, 0))
            if holder is not None:
                found[name] = holder
        return found

    def check(self) -> None:
        """To be asked before anything is written that others may have taken over.

        Raises:
          Transient: they have taken this worker for dead.
        """
        try:
            os.utime(self._heartbeat)
        except FileNotFoundError:
            raise Transient(
                f"{self.me} was silent for more than {SILENT * self.me.interval:g} s (suspended, "
                "or cut off from the file system?) and others have taken over its trials; it "
                "stops here. Run the same command again to join them."
            ) from None

    def see_anew(self, folder: Path) -> None:
        """Change something in `folder`, so that an NFS client asks the server what is in it."""
        probe = folder / self.me.token
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()

    # ---- claims ----

    def _highest(self) -> dict[str, int]:
        """Digest -> N of the claim that counts."""
        self.see_anew(self._folder)
        found: dict[str, int] = {}
        for name in os.listdir(self._folder):
            digest, _, number = name.partition(".")
            if number.isdecimal():
                found[digest] = max(int(number), found.get(digest, 0))
        return found

    def _holder(self, digest: str, number: int) -> tuple[Worker, float] | None:
        if not number:
            return None
        path = self._folder / f"{digest}.{number}"
        text = path.read_text(encoding="utf-8")
        if not text:
            return None
        try:
            worker = Worker(**json.loads(text))
        except (ValueError, TypeError):
            raise UserError(
                f"{path} is no claim of ours; stop all workers, delete {self._folder} and start "
                "them again"
            ) from None
        beat = self._last_beat(worker)
        return None if beat is None else (worker, beat)

    def _link(self, source: Path, digest: str, number: int) -> bool:
        """Whether the claim is `source`'s and no other's."""
        path = self._folder / f"{digest}.{number}"
        try:
            os.link(source, path)
        except FileExistsError:
            # Or the first answer of a file server was lost, and this is that of the second try.
            return os.path.samefile(source, path)
        except OSError as error:
            if error.errno not in NO_LINKS:
                self.check()
                raise
            raise UserError(
                f"the file system of {self._folder} has no hard links ({error.strerror}), by which "
                "workers share trials; choose a --workdir on another, or run without --worker"
            ) from None
        return True

    # ---- heartbeats ----

    def _beat(self) -> None:
        while not self._ended.wait(self.me.interval):
            try:
                os.utime(self._heartbeat)
            except FileNotFoundError:
                return  # `check` will say so
            except OSError:
                pass  # of a file server that is away; the next one may arrive

    def _last_beat(self, worker: Worker) -> float | None:
        """The time of a worker's last heartbeat; None if it is dead, which it then stays."""
        path = self._heartbeat.with_name(worker.token)
        try:
            beat = _modified(path)
        except FileNotFoundError:
            return None
        if worker == self.me:
            return beat
        self.check()
        silence = _modified(self._heartbeat) - beat
        if not self._has_ended(worker) and silence <= SILENT * worker.interval:
            return beat
        self._bury(worker)
        self.say(f"{worker} has died; its trials are free for others")
        return None

    def _has_ended(self, worker: Worker) -> bool:
        """Whether the process is known to be gone."""
        if worker.job and worker.job == self.me.job and worker.restarts < self.me.restarts:
            return True
        here = worker.machine != "" and worker.machine == self.me.machine
        return here and _start_of(worker.pid) != worker.began

    def _bury(self, worker: Worker) -> None:
        self._heartbeat.with_name(worker.token).unlink(missing_ok=True)
        for path in (self._mine, self._nobody):
            path.with_stem(worker.token).unlink(missing_ok=True)


def _this_process(index: int, interval: float) -> Worker:
    pid = os.getpid()
    return Worker(
        index=index,
        host=socket.gethostname(),
        pid=pid,
        machine=_machine(),
        began=_start_of(pid),
        job=os.environ.get("SLURM_JOB_ID", ""),
        restarts=int(os.environ.get("SLURM_RESTART_COUNT") or 0),
        interval=interval,
        token=secrets.token_hex(8),
    )


def _machine() -> str:
    """Where a process number means one process, for one user; "" where that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino} {os.getuid()}"
    except OSError:
        return ""


def _start_of(pid: int) -> str:
    """When a process of this machine began, in ticks since boot; "" if it runs no more."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()  # the name before may hold anything
    return "" if fields[0] in ("Z", "X") else fields[19]


def _modified(path: Path) -> float:
    """By the file system's clock; opening asks an NFS server anew, which a mere stat may not."""
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_mtime


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:24]

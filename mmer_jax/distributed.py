"""Several processes that carry out one run together.

Every process runs the same program over the same mesh. The first one writes what a run writes;
what a process learns by itself (a signal, the clock, a file) becomes known to all before any of
them acts on it, or they would no longer run the same programs. Words go through the coordinator's
key-value store, which waits as long as it takes; tensors go over the mesh (mesh.py).
"""

import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from jax._src import distributed as jax_distributed  # its store has no public name
from jax._src.clusters.cloud_tpu_cluster import GceTpuCluster, GkeTpuCluster  # nor have these

from mmer_jax.errors import Transient, UserError, exit_code_of


class KnownToAll(UserError):
    """What every process of the run raises at the same place: one of them says it."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


T = TypeVar("T")
FOREVER_MS = 7 * 24 * 3600 * 1000
HEARTBEAT_SECONDS = 60  # a process that is silent for so long has died
LOOK_SECONDS = 0.5  # how often a process asks whether the others still go on
HEARD_SECONDS = 2 * LOOK_SECONDS  # then they have heard that one ends, and do not miss it
LEAVE_SECONDS = 3.0  # the first process, who keeps the store, goes after the others

_turns = itertools.count()  # the same in every process
_places: list[str] = []  # in the store, since the last barrier
_joined = False  # whether there are others, and they can be reached


def initialize(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Join the other processes of the run, if there are any.

    Explicit values win. Without them Cloud TPU slices, GKE, Open MPI and SLURM jobs of several
    tasks are recognised by JAX; anything else is one process alone.

    Args:
      coordinator: "HOST:PORT" of the first process.
      num_processes: of the run.
      process_id: of this one, from 0.

    Raises:
      UserError: only some of the three are given, or the others cannot be reached.
    """
    given = {
        "--coordinator": coordinator,
        "--num_processes": num_processes,
        "--process_id": process_id,
    }
    missing = [name for name, value in given.items() if value in (None, "")]
    if len(missing) == len(given):
        if not _in_cluster():
            return
    elif missing:
        raise UserError(
            f"{', '.join(missing)} is not given; a run of several processes needs "
            "--coordinator=HOST:PORT --num_processes=N --process_id=I in each of them"
        )
    elif not 0 <= process_id < num_processes:  # type: ignore[operator]
        raise UserError(
            f"--process_id={process_id} with --num_processes={num_processes}; expected 0 to "
            f"{num_processes - 1}"  # type: ignore[operator]
        )
    elif not coordinator.rpartition(":")[2].isdecimal():  # type: ignore[union-attr]
        raise UserError(f"--coordinator={coordinator}; expected HOST:PORT")
    global _joined
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM for itself
    try:
        jax.distributed.initialize(
            coordinator or None,
            num_processes,
            process_id,
            # Under SLURM JAX gives each process one GPU, the one of its number on the machine.
            local_device_ids=[] if _has_its_machine() else None,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except Exception as error:
        raise Transient(
            f"the processes of this run do not find each other ({error}); is the coordinator "
            f"{coordinator or 'of this cluster'} up, and can its port be reached?"
        ) from None
    _joined = True


def _in_cluster() -> bool:
    """Whether this is one of several processes that JAX can connect by itself.

    One task of SLURM, an array's for example, is one process, and so is a TPU machine alone.
    """
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ:
        return True
    if int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1")) > 1:
        return True
    slices = (GkeTpuCluster, GceTpuCluster)
    return any(cluster.is_env_present() and cluster.get_process_count() > 1 for cluster in slices)


def _has_its_machine() -> bool:
    """Whether SLURM has started one task on each machine, which drives all its devices."""
    tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")  # such as 1(x4), or 2,1
    return bool(tasks) and all(part.split("(")[0] == "1" for part in tasks.split(","))


def count() -> int:
    return jax.process_count() if _joined else 1


def is_first() -> bool:
    """Whether this process writes."""
    return not _joined or jax.process_index() == 0


def on_first(action: Callable[[], Any]) -> Any:
    """What `action` returns in the first process; the others wait for it.

    Args:
      action: what it returns must be JSON; with several processes tuples come back as lists.

    Raises:
      KnownToAll: in every process, where `action` raises a UserError or an OSError.
    """
    if count() == 1:
        return action()
    key = _next_place()
    if is_first():
        try:
            said = json.dumps({"value": action()})
        except (UserError, OSError) as error:
            code = exit_code_of(error)
            _store().key_value_set(key, json.dumps({"error": str(error), "exit_code": code}))
            raise KnownToAll(str(error), code) from error
        _store().key_value_set(key, said)
    told = json.loads(_store().blocking_key_value_get(key, FOREVER_MS))
    if "error" in told:
        raise KnownToAll(told["error"], told["exit_code"])
    return told["value"]


def first_then_others(action: Callable[[], T]) -> T:
    """What `action` returns in this process: in the first one first, then in the others."""
    found = action() if is_first() else None
    wait_for_all()
    if not is_first():
        found = action()
    wait_for_all()
    return found  # type: ignore[return-value]


def agree(values: Sequence[int]) -> list[int]:
    """The largest of each of the values that the processes come with."""
    if count() == 1:
        return list(values)
    place = _next_place()
    _store().key_value_set(f"{place}/{jax.process_index()}", json.dumps(list(values)))
    _store().wait_at_barrier(place, FOREVER_MS)
    found = [json.loads(said) for _, said in _store().key_value_dir_get(f"{place}/")]
    _forget_earlier()
    return [max(column) for column in zip(*found, strict=True)]


def total(values: np.ndarray) -> np.ndarray:
    """The sum of float64 arrays of one shape over the processes, in their order: equal in all."""
    if count() == 1:
        return values
    place = _next_place()
    _store().key_value_set_bytes(f"{place}/{jax.process_index()}", values.tobytes())
    parts = [
        _store().blocking_key_value_get_bytes(f"{place}/{process}", FOREVER_MS)
        for process in range(count())
    ]
    return np.sum([np.frombuffer(part).reshape(values.shape) for part in parts], axis=0)


def wait_for_all() -> None:
    """Nobody goes on before everybody is here."""
    agree([0])


def _next_place() -> str:
    """Where in the store the processes meet next."""
    _places.append(f"mmer/{next(_turns)}")
    return _places[-1]


def _forget_earlier() -> None:
    """Clear the store; after a barrier every process has read what lies before it."""
    if is_first():
        for place in _places[:-1]:
            _store().key_value_delete(place)
    del _places[:-1]


# ---- ending together ----

_ENDED = "mmer/ended"


def tell_end(code: int, why: str) -> None:
    """The other processes end with `code` as well, wherever they are."""
    if count() > 1:
        try:
            said = json.dumps({"process": jax.process_index(), "code": code, "why": why})
            _store().key_value_set(_ENDED, said, allow_overwrite=True)
        except jax.errors.JaxRuntimeError:
            pass  # the store's process has gone already


def leave(code: int) -> NoReturn:
    """End this process; of several without waiting for the others, which may be gone."""
    if count() == 1:
        sys.exit(code)
    end_at_once(code)


def end_at_once(code: int) -> NoReturn:
    """End this process from any thread; the first one lets the others go before it."""
    if count() > 1:
        time.sleep(LEAVE_SECONDS if is_first() else HEARD_SECONDS)
    os._exit(code)


def end_of_others() -> int | None:
    """The code with which another process has ended, if one has: what fails here fails for that."""
    told = _told() if count() > 1 else None
    return None if told is None else told["code"]


def _told() -> dict[str, Any] | None:
    """What another process has said of its end."""
    try:
        told = json.loads(_store().key_value_try_get(_ENDED))
    except jax.errors.JaxRuntimeError:  # nobody has
        return None
    return told if told["process"] != jax.process_index() else None


def follow_others() -> None:
    """End when another process says that it has (`tell_end`); asked by a thread."""
    if count() > 1:
        threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    while True:
        time.sleep(LOOK_SECONDS)
        if _store() is None:  # JAX has taken leave: this process ends
            return
        if told := _told():
            os.write(2, f"process {told['process']} has ended: {told['why']}\n".encode())
            end_at_once(told["code"])


def _store():
    return jax_distributed.global_state.client

"""The device mesh ('trial', 'data') and where arrays lie on it.

The mesh spans the devices of all processes of a run. `put` and `fetch` are the only ways on and off
it: an array may have parts that this process cannot see.
"""

import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mmer_jax import distributed
from mmer_jax.errors import UserError


def make_mesh(n_trials: int, batch_size: int, data: int = 0, n_devices: int = 0) -> Mesh:
    """A mesh over the devices.

    Trials never speak to each other, so they get as many devices as they can fill; what is left
    divides the batch.

    Args:
      n_trials: trials that run side by side.
      batch_size: what the data axis must divide.
      data: devices on the data axis; 0 chooses.
      n_devices: how many devices to use; 0: all.
    """
    devices = jax.devices()
    if n_devices > len(devices):
        raise UserError(f"mesh.devices={n_devices}, but there are {len(devices)} devices")
    count = n_devices or len(devices)
    if count < len(devices) and jax.process_count() > 1:
        raise UserError(
            f"mesh.devices={n_devices}; a run of several processes uses all of their "
            f"{len(devices)} devices: leave it 0, and start fewer processes"
        )
    if data and (count % data or batch_size % data):
        raise UserError(
            f"mesh.data={data} must divide both the {count} devices and the batch of {batch_size}"
        )
    if not data:
        choices = [d for d in range(1, count + 1) if count % d == 0 and batch_size % d == 0]
        data = next((d for d in choices if count // d <= max(n_trials, 1)), choices[-1])
    grid = np.array(devices[:count]).reshape(count // data, data)
    mesh = Mesh(grid, ("trial", "data"), axis_types=(AxisType.Auto, AxisType.Auto))
    if jax.process_count() > 1:
        _meet(mesh)
    return mesh


def _meet(mesh: Mesh) -> None:
    """Let the processes connect along both axes while they are all here.

    Gloo connects the devices of a group in the first program that uses it and gives up when one of
    them comes half a minute late, which happens where one process compiles and another finds the
    program in its cache.
    """
    distributed.wait_for_all()
    everything = PartitionSpec(mesh.axis_names)
    ones = put(np.ones(mesh.size), NamedSharding(mesh, everything))
    for axes in ("trial", "data", mesh.axis_names):
        total = jax.shard_map(
            functools.partial(jax.lax.psum, axis_name=axes),
            mesh=mesh,
            in_specs=everything,
            out_specs=everything,
        )
        jax.jit(total)(ones).block_until_ready()


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds all of it."""
    return NamedSharding(mesh, PartitionSpec())


def by_trial(mesh: Mesh) -> NamedSharding:
    """The leading axis is trials."""
    return NamedSharding(mesh, PartitionSpec("trial"))


def by_batch(mesh: Mesh) -> NamedSharding:
    """[steps, trials, rows of a batch]."""
    return NamedSharding(mesh, PartitionSpec(None, "trial", "data"))


def put(tree: Any, sharding: NamedSharding) -> Any:
    """Arrays on the mesh. Every process comes with the same whole host arrays (or typed keys)."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda x: _put(x, sharding), tree)


def _put(x, sharding: NamedSharding) -> jax.Array:
    if hasattr(x, "dtype") and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put(jax.random.key_data(x), sharding))
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda part: x[part])


def fetch(tree: Any) -> Any:
    """Whole NumPy arrays in every process, which all must ask for them.

    One array at a time is collected, so that the devices hold no second copy of all.
    """
    return jax.tree.map(_fetch, tree)


def _fetch(x) -> np.ndarray:
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        if not x.is_fully_replicated:
            assert isinstance(x.sharding, NamedSharding)
            everywhere = NamedSharding(x.sharding.mesh, PartitionSpec())
            x = _collect(everywhere)(x)
        return np.asarray(x.addressable_data(0))
    return np.asarray(x)


@functools.cache
def _collect(everywhere: NamedSharding):
    """A function of its own for each call would be compiled for each."""
    return jax.jit(lambda value: value, out_shardings=everywhere)


def padded_count(n_trials: int, mesh: Mesh) -> int:
    """The number of trials rounded up to what the trial axis divides."""
    size = mesh.shape["trial"]
    return -(-n_trials // size) * size

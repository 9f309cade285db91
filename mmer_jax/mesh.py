"""The device mesh ('trial', 'data') and where arrays lie on it."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

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
    if data and (count % data or batch_size % data):
        raise UserError(
            f"mesh.data={data} must divide both the {count} devices and the batch of {batch_size}"
        )
    if not data:
        choices = [d for d in range(1, count + 1) if count % d == 0 and batch_size % d == 0]
        data = next((d for d in choices if count // d <= max(n_trials, 1)), choices[-1])
    grid = np.array(devices[:count]).reshape(count // data, data)
    return Mesh(grid, ("trial", "data"), axis_types=(AxisType.Auto, AxisType.Auto))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds all of it."""
    return NamedSharding(mesh, PartitionSpec())


def by_trial(mesh: Mesh) -> NamedSharding:
    """The leading axis is trials."""
    return NamedSharding(mesh, PartitionSpec("trial"))


def by_batch(mesh: Mesh) -> NamedSharding:
    """[steps, trials, rows of a batch]."""
    return NamedSharding(mesh, PartitionSpec(None, "trial", "data"))


def put(tree, sharding: NamedSharding):
    """Host arrays, equal in every process, laid on the mesh."""
    return jax.device_put(tree, sharding)


def padded_count(n_trials: int, mesh: Mesh) -> int:
    """The number of trials rounded up to what the trial axis divides."""
    size = mesh.shape["trial"]
    return -(-n_trials // size) * size

"""Trees of arrays in files (Orbax), written and read by one process alone.

Of several processes that carry out a run the first one writes, and any may read: none waits for
another here, as Orbax's newer interface would.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp


def save(folder: Path, tree: Any) -> None:
    """Write the NumPy arrays of `tree` to `folder`, which appears as a whole."""
    with _checkpointer() as checkpointer:
        checkpointer.save(folder, tree, force=True)


def load(folder: Path, like: Any = None) -> Any:
    """The NumPy arrays of `folder`, as dicts, or in the containers of `like`.

    Args:
      like: a tree of arrays of the stored shapes.
    """
    # Written by Orbax's newer interface, as this package did once, they lie one folder deeper.
    folder = folder / "state" if (folder / "orbax.checkpoint").exists() else folder
    with _checkpointer() as checkpointer:
        if like is None:
            return checkpointer.restore(folder)
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), like)
        return checkpointer.restore(folder, item=like, restore_args=as_numpy)


def _checkpointer() -> ocp.Checkpointer:
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process_{me}"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)

"""One of two processes, the second of which comes to a program 40 s after the first."""

import sys
import time

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from mmer_jax import distributed, mesh

flags = dict(argument[2:].split("=") for argument in sys.argv[1:])
distributed.initialize(flags["coordinator"], int(flags["num_processes"]), int(flags["process_id"]))
both = mesh.make_mesh(2, 1)
ones = mesh.put(np.ones(2, np.float32), NamedSharding(both, PartitionSpec("trial")))
if not distributed.is_first():
    time.sleep(40)
total = jax.jit(lambda x: x.sum(), out_shardings=mesh.replicated(both))(ones)
print(f"sum {mesh.fetch(total)}")

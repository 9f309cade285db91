"""One of several processes that tell each other numbers; prints what it has heard."""

import sys

import numpy as np

from mmer_jax import distributed

flags = dict(argument[2:].split("=") for argument in sys.argv[1:])
number = int(flags["process_id"])
distributed.initialize(flags["coordinator"], int(flags["num_processes"]), number)
heard = []
for turn in range(3):
    first = distributed.on_first(lambda turn=turn: [turn, "said by the first"])
    largest = distributed.agree([number, turn - number])
    total = distributed.total(np.array([number, 0.5]))
    heard.append([first, largest, total.tolist()])
print(heard)
distributed.wait_for_all()
# The first process has cleared the store before it says this; what it says then stays.
left = distributed.on_first(lambda: len(distributed._store().key_value_dir_get("mmer")))
print(f"{left} words left")

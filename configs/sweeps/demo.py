"""Six points on the synthetic corpus: 60 trials of 5 folds and 2 seeds, minutes on a laptop.

bash launch/local.sh --sweep=configs/sweeps/demo.py --config.trials.seeds=2
"""

from mmer_jax.sweep import grid, log_uniform, random


def sweep():
    yield from grid(
        {
            "stages.ifmmin.learning_rate": [5e-4, 1e-3],
            "stages.ifmmin.invariance_weight": [10.0, 100.0],
        }
    )
    yield from random(2, {"stages.ifmmin.learning_rate": log_uniform(1e-4, 1e-2)}, seed=0)

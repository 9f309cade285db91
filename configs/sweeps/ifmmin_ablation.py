"""What IF-MMIN's two extra loss terms contribute: with and without each, validation UA.

    python -m mmer_jax.main --config=configs/ifmmin.py --sweep=configs/sweeps/ifmmin_ablation.py \
        --workdir=workdirs/ifmmin_ablation --config.data.root=FEATURE_DIR

The four points train in one program. Without both it is the cascade as a deeper classifier.
"""

from mmer_jax.sweep import grid


def sweep():
    yield from grid(
        {
            "stages.ifmmin.imagination_weight": [0.0, 1.0],
            "stages.ifmmin.invariance_weight": [0.0, 10.0],
        }
    )

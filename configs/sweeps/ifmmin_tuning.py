"""What IF-MMIN's defaults were compared with, by validation on three of the ten folds of IEMOCAP.

    python -m mmer_jax.main --config=configs/ifmmin.py --sweep=configs/sweeps/ifmmin_tuning.py \
        --workdir=workdirs/tuning --config.data.root=FEATURE_DIR --config.trials.folds="[1,4,9]"

The first point is configs/ifmmin.py itself, the last one is configs/ifmmin_paper.py.
"""

PAPER = {
    "train.patterns": "sample",
    "data.clip_std": 0.0,
    "stages.utt_shared.learning_rate": 2e-4,
    "stages.ifmmin.learning_rate": 2e-4,
    "stages.ifmmin.constant_epochs": 20,
    "stages.ifmmin.decay_epochs": 20,
}


def sweep():
    yield {"stages.ifmmin.learning_rate": 1e-3}
    yield {"stages.ifmmin.learning_rate": 2e-3}
    yield {"stages.ifmmin.invariance_weight": 10.0}
    yield PAPER

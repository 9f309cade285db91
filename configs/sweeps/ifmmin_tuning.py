"""How configs/ifmmin.py got its values: by validation on three of the ten folds of IEMOCAP.

    python -m mmer_jax.main --config=configs/ifmmin.py --sweep=configs/sweeps/ifmmin_tuning.py \
        --workdir=workdirs/tuning --config.data.root=FEATURE_DIR --config.trials.folds="[1,4,9]"

The last points are configs/ifmmin_paper.py, and the same with the weight of the invariance loss
that the released code trains with. README, "What was tuned", has the scores.
"""

RATE, WEIGHT = "stages.ifmmin.learning_rate", "stages.ifmmin.invariance_weight"

PAPER = {
    "train.patterns": "sample",
    "data.clip_std": 0.0,
    "stages.utt_shared.learning_rate": 2e-4,
    "stages.ifmmin.constant_epochs": 20,
    "stages.ifmmin.decay_epochs": 20,
    RATE: 2e-4,
    WEIGHT: 100.0,
}


def sweep():
    yield {RATE: 1e-3, WEIGHT: 100.0}
    yield {RATE: 2e-3, WEIGHT: 100.0}
    yield {RATE: 1e-3, WEIGHT: 10.0}
    yield PAPER
    yield PAPER | {WEIGHT: 1.0}

"""Plain data augmentation: utt_fusion trained on every missing pattern, nothing imagined.

    python -m mmer_jax.main --config=configs/augmentation.py --workdir=workdirs/augmentation \
        --config.data.root=FEATURE_DIR

The control for MMIN, IF-MMIN and NMER: the same encoders, epochs and learning rates.
"""

from mmer_jax.config import base, stage


def get_config():
    c = base()
    c.method = "augmentation"
    c.stages.utt_fusion = stage(learning_rate=5e-4, clip=0.5, dropout=0.3)
    c.stages.augmentation = stage(
        learning_rate=1e-3,
        b1=0.5,
        init_from_teacher=True,  # False: afresh, without the stage before
    )
    c.lock()
    return c

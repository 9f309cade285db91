"""MMIN (Zhao et al., ACL 2021), every pattern in every step.

    python -m mmer_jax.main --config=configs/mmin.py --workdir=workdirs/mmin \
        --config.data.root=FEATURE_DIR

Networks and loss weights are the paper's. Learning rates and epochs are those that IF-MMIN got by
validation (configs/ifmmin.py), so that the methods are compared alike; configs/mmin_paper.py has
the published training settings.
"""

from mmer_jax.config import base, stage


def get_config():
    c = base()
    c.method = "mmin"
    c.model.cascade = (256, 128, 64)
    c.model.blocks = 5
    c.model.backward_cascade = "own"  # variants: "shared" with the forward one, "none"
    c.quirks.cascade_init = "scaled"  # "kaiming": as released
    c.stages.utt_fusion = stage(learning_rate=5e-4, clip=0.5, dropout=0.3)
    c.stages.mmin = stage(
        learning_rate=1e-3,
        b1=0.5,
        imagination_weight=4.0,
        cycle_weight=2.0,
        init_from_teacher=True,  # encoders start from utt_fusion
    )
    c.lock()
    return c

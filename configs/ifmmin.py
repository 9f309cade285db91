"""IF-MMIN (Zuo et al., ICASSP 2023), every pattern in every step.

    python -m mmer_jax.main --config=configs/ifmmin.py --workdir=workdirs/ifmmin \
        --config.data.root=FEATURE_DIR

IEMOCAP, four emotions, 10 folds (README): WA/UA 70.0/72.6 with all modalities, 58.7/60.3 in the
mean of the six missing patterns; 24 minutes on 2 CPU cores beside other jobs.

Networks are the paper's. Learning rates, epochs, the clipping of features and the weight of the
invariance loss were chosen by validation UA (README, "What was tuned");
configs/ifmmin_paper.py has the published training settings.
"""

from mmer_jax.config import base, stage


def get_config():
    c = base()
    c.method = "ifmmin"
    c.model.cascade = (256, 128, 64)
    c.model.blocks = 5
    c.model.invariant_input = True  # False: ablation, no invariant feature in the cascade
    c.stages.utt_shared = stage(
        batch_size=64,
        constant_epochs=10,
        decay_epochs=10,
        learning_rate=5e-4,
        clip=0.5,
        dropout=0.3,
        cmd_weight=1.0,
    )
    c.stages.ifmmin = stage(
        constant_epochs=10,
        decay_epochs=10,
        learning_rate=1e-3,
        b1=0.5,
        clip=1.0,
        dropout=0.5,
        imagination_weight=1.0,
        invariance_weight=10.0,  # the paper's is 100; 0: ablation, no invariance loss
        init_from_teacher=True,  # encoders and SharedEncoder start from utt_shared
    )
    c.lock()
    return c

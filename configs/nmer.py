"""NMER (Fan et al., MRAC@ACM MM 2024), every pattern in every step, Gaussian noise.

    python -m mmer_jax.main --config=configs/nmer.py --workdir=workdirs/nmer \
        --config.data.root=FEATURE_DIR

Networks are the paper's (the decoder, which the release lacks, is ours). Learning rates and epochs
are those that IF-MMIN got by validation (configs/ifmmin.py), so that the methods are compared
alike; configs/nmer_paper.py has the published training settings and the released behaviour.
"""

from ml_collections import ConfigDict

from mmer_jax.config import base, stage


def get_config():
    c = base()
    c.method = "nmer"
    c.train.noise = "gaussian"  # or impulse
    c.eval.protocols = ("full", "pattern", "rate", "noise")
    c.model.vae = ConfigDict(
        {"latent": 64, "layers": 5, "heads": 8, "feedforward": 128, "hidden": 128}
    )
    c.quirks.attention = "modalities"  # "batch": over the utterances of a batch, as released
    c.quirks.kl = "mean"  # over utterances; "sum": over the batch, as released
    c.quirks.latent = "mean"  # in prediction; "sample": drawn, as released
    c.stages.nmer_teacher = stage(learning_rate=5e-4, clip=0.5, dropout=0.3, cmd_weight=1.0)
    c.stages.nmer = stage(
        learning_rate=1e-3,
        b1=0.5,
        dropout=0.1,
        invariance_weight=1.0,
        reconstruction_weight=1.0,
        # The evidence bound's own: 2 / 384, as the reconstruction error is a mean over 384 numbers.
        kl_weight=0.005,
    )
    c.lock()
    return c

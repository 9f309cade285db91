"""NMER with the published training settings and the released behaviour, 40 + 40 epochs.

    python -m mmer_jax.main --config=configs/nmer_paper.py --workdir=workdirs/nmer_paper \
        --config.data.root=FEATURE_DIR
"""

from configs import nmer


def get_config():
    c = nmer.get_config()
    c.unlock()
    c.train.patterns = "sample"
    c.data.clip_std = 0.0
    c.quirks.update(pad_masking=False, attention="batch", kl="sum", latent="sample")
    c.stages.nmer_teacher.learning_rate = 2e-4
    c.stages.nmer.update(
        constant_epochs=40, decay_epochs=40, learning_rate=2e-4, b1=0.9, kl_weight=1.0
    )
    c.lock()
    return c

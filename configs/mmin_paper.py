"""MMIN with the published training settings: one random pattern per utterance, 60 epochs.

    python -m mmer_jax.main --config=configs/mmin_paper.py --workdir=workdirs/mmin_paper \
        --config.data.root=FEATURE_DIR
"""

from configs import mmin


def get_config():
    c = mmin.get_config()
    c.unlock()
    c.train.patterns = "sample"
    c.data.clip_std = 0.0
    c.quirks.cascade_init = "kaiming"
    c.stages.utt_fusion.learning_rate = 2e-4
    c.stages.mmin.update(constant_epochs=30, decay_epochs=30, learning_rate=2e-4)
    c.lock()
    return c

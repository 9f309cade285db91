"""IF-MMIN with the published training settings: one random pattern per utterance, 20 + 20 epochs.

    python -m mmer_jax.main --config=configs/ifmmin_paper.py --workdir=workdirs/ifmmin_paper \
        --config.data.root=FEATURE_DIR
"""

from configs import ifmmin


def get_config():
    c = ifmmin.get_config()
    c.unlock()
    c.train.patterns = "sample"
    c.data.clip_std = 0.0
    c.stages.utt_shared.learning_rate = 2e-4
    c.stages.ifmmin.update(constant_epochs=20, decay_epochs=20, learning_rate=2e-4)
    c.stages.ifmmin.invariance_weight = 100.0
    c.lock()
    return c

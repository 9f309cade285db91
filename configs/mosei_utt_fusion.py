"""utt_fusion on a small real-valued set, as configs/mosei_ifmmin.py.

    python -m mmer_jax.main --config=configs/mosei_utt_fusion.py --workdir=workdirs/mosei_fusion \
        --config.data.root=FEATURE_DIR --config.data.nonfinite=missing --config.trials.seeds=5
"""

from configs import utt_fusion


def get_config():
    c = utt_fusion.get_config()
    c.unlock()
    c.data.modalities = ("text", "audio", "visual")
    c.data.label = "sentiment"
    c.data.splits = "split"
    c.stages.utt_fusion.update(
        batch_size=32, weight_decay=1e-2, learning_rate=1e-3, constant_epochs=20, decay_epochs=20
    )
    c.lock()
    return c

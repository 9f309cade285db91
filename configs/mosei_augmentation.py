"""Plain augmentation on a small real-valued set, as configs/mosei_ifmmin.py.

    python -m mmer_jax.main --config=configs/mosei_augmentation.py --workdir=workdirs/mosei_aug \
        --config.data.root=FEATURE_DIR --config.data.nonfinite=missing --config.trials.seeds=5
"""

from configs import augmentation


def get_config():
    c = augmentation.get_config()
    c.unlock()
    c.data.modalities = ("text", "audio", "visual")
    c.data.label = "sentiment"
    c.data.splits = "split"
    for stage in c.stages.values():
        stage.update(batch_size=32, weight_decay=1e-2, learning_rate=1e-3)
    c.lock()
    return c

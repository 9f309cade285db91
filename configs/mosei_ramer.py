"""RAMER on a small real-valued set, as configs/mosei_ifmmin.py. Not tuned.

    python -m mmer_jax.main --config=configs/mosei_ramer.py --workdir=workdirs/mosei_ramer \
        --config.data.root=FEATURE_DIR --config.data.nonfinite=missing --config.trials.seeds=5
"""

from configs import ramer


def get_config():
    c = ramer.get_config()
    c.unlock()
    c.data.modalities = ("text", "audio", "visual")
    c.data.label = "sentiment"
    c.data.splits = "split"
    for stage in c.stages.values():
        stage.update(batch_size=32, weight_decay=1e-2)
    c.lock()
    return c

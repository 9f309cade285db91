"""HARDY-MER on a small real-valued set, as configs/mosei_ifmmin.py. Not tuned.

    python -m mmer_jax.main --config=configs/mosei_hardy.py --workdir=workdirs/mosei_hardy \
        --config.data.root=FEATURE_DIR --config.data.nonfinite=missing --config.trials.seeds=5

Its videos belong to no dialogues: each is one of a single turn, and batches are of 32 of them.
"""

from configs import hardy


def get_config():
    c = hardy.get_config()
    c.unlock()
    c.data.modalities = ("text", "audio", "visual")
    c.data.label = "sentiment"
    c.data.splits = "split"
    c.data.dialogues = "none"
    for stage in c.stages.values():
        stage.update(batch_size=32, weight_decay=1e-2)
    c.lock()
    return c

"""HARDY-MER on a small real-valued set, as configs/mosei_ifmmin.py.

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
    for stage in c.stages.values():  # of eight points the one with the least validation error
        stage.update(batch_size=32, weight_decay=1e-2, learning_rate=2e-4, dropout=0.7)
    c.lock()
    return c

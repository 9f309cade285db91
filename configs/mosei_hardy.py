"""HARDY-MER on a small real-valued set, as configs/mosei_ifmmin.py.

    python -m mmer_jax.main --config=configs/mosei_hardy.py --workdir=workdirs/mosei_hardy \
        --config.data.root=FEATURE_DIR --config.data.nonfinite=missing --config.trials.seeds=5

Its videos belong to no dialogues: each is one of a single turn, and batches are of 32 of them.
"""

from configs import hardy
from configs.mosei_ifmmin import on_mosei


def get_config():
    # Of eight points the one with the least validation error.
    c = on_mosei(hardy.get_config(), learning_rate=2e-4, dropout=0.7)
    c.data.dialogues = "none"
    return c

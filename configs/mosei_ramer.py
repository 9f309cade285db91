"""RAMER on a small real-valued set, as configs/mosei_ifmmin.py.

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
    for stage in c.stages.values():  # of nine points the one with the least validation error
        stage.update(batch_size=32, weight_decay=1e-2, encoder_dropout=0.3, dropout=0.5)
    c.stages.ramer_base.learning_rate = 2e-3
    c.stages.ramer.learning_rate = 4e-3
    c.lock()
    return c

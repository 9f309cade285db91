"""RAMER on a small real-valued set, as configs/mosei_ifmmin.py.

    python -m mmer_jax.main --config=configs/mosei_ramer.py --workdir=workdirs/mosei_ramer \
        --config.data.root=FEATURE_DIR --config.data.nonfinite=missing --config.trials.seeds=5
"""

from configs import ramer
from configs.mosei_ifmmin import on_mosei


def get_config():
    # Of nine points the one with the least validation error.
    c = on_mosei(ramer.get_config(), encoder_dropout=0.3, dropout=0.5)
    c.stages.ramer_base.learning_rate = 2e-3
    c.stages.ramer.learning_rate = 4e-3
    return c

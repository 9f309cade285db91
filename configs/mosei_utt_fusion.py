"""utt_fusion on a small real-valued set, as configs/mosei_ifmmin.py.

    python -m mmer_jax.main --config=configs/mosei_utt_fusion.py --workdir=workdirs/mosei_fusion \
        --config.data.root=FEATURE_DIR --config.data.nonfinite=missing --config.trials.seeds=5
"""

from configs import utt_fusion
from configs.mosei_ifmmin import on_mosei


def get_config():
    return on_mosei(
        utt_fusion.get_config(), learning_rate=1e-3, constant_epochs=20, decay_epochs=20
    )

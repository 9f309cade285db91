"""Plain augmentation on a small real-valued set, as configs/mosei_ifmmin.py.

    python -m mmer_jax.main --config=configs/mosei_augmentation.py --workdir=workdirs/mosei_aug \
        --config.data.root=FEATURE_DIR --config.data.nonfinite=missing --config.trials.seeds=5
"""

from configs import augmentation
from configs.mosei_ifmmin import on_mosei


def get_config():
    return on_mosei(augmentation.get_config(), learning_rate=1e-3)

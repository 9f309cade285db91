"""utt_shared: IF-MMIN's teacher by itself, full modality (Zuo et al., ICASSP 2023, §2.2).

    python -m mmer_jax.main --config=configs/utt_shared.py --workdir=workdirs/utt_shared \
        --config.data.root=FEATURE_DIR

Settings are those of configs/ifmmin.py's first stage.
"""

from configs import ifmmin


def get_config():
    c = ifmmin.get_config()
    c.unlock()
    c.method = "utt_shared"
    del c.stages.ifmmin, c.model.cascade, c.model.blocks, c.model.invariant_input
    c.lock()
    return c

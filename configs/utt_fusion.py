"""utt_fusion: full-modality fusion, scored with missing modalities as zeros (lower baseline).

    python -m mmer_jax.main --config=configs/utt_fusion.py --workdir=workdirs/utt_fusion \
        --config.data.root=FEATURE_DIR

IEMOCAP, four emotions, 10 folds (README): WA/UA 64.5/66.6 with all modalities, 52.0/53.4 in the
mean of the six missing patterns; 4 minutes on 2 CPU cores beside other jobs.

Learning rate as in configs/ifmmin.py's first stage, so that the two are compared alike; the
published one is 2e-4.
"""

from mmer_jax.config import base, stage


def get_config():
    c = base()
    c.method = "utt_fusion"
    c.stages.utt_fusion = stage(learning_rate=5e-4, clip=0.5, dropout=0.3)
    c.lock()
    return c

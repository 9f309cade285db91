"""RAMER with the published sizes and the released behaviour, one random pattern per utterance.

    python -m mmer_jax.main --config=configs/ramer_paper.py --workdir=workdirs/ramer_paper \
        --config.data.root=FEATURE_DIR
"""

from configs import ramer


def get_config():
    c = ramer.get_config()
    c.unlock()
    c.train.patterns = "sample"
    c.data.clip_std = 0.0
    c.model.embedding = 256
    c.model.classifier = (256, 128)
    c.model.transformer.feedforward = 2048
    c.quirks.update(drop_first=True, normalize_query=False)
    for settings in c.stages.values():
        settings.update(learning_rate=2e-4, dropout=0.5, encoder_dropout=0.5, clip=1.0)
    c.lock()
    return c

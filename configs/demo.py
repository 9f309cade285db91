"""IF-MMIN on an embedded synthetic corpus: three modalities, five folds, minutes on a laptop.

bash launch/local.sh
"""

from configs import ifmmin


def get_config():
    c = ifmmin.get_config()
    c.unlock()
    c.data.source = "synthetic"
    c.data.label = "emotion"
    c.data.splits = "session"
    c.model.embedding = 64
    c.model.cascade = (128, 64, 32)
    c.model.blocks = 3
    # 600 training utterances a fold: small batches, or there are too few updates.
    c.stages.utt_shared.update(batch_size=32, constant_epochs=6, decay_epochs=4, learning_rate=1e-3)
    c.stages.ifmmin.batch_size = 32
    c.lock()
    return c

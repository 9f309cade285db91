"""EI² on MC-EIU, English, with the published training settings, on full modality.

    python -m mmer_jax.data.layouts.mc_eiu RELEASE FEATURE_DIR
    python -m mmer_jax.main --config=configs/mc_eiu_english.py --workdir=workdirs/mc_eiu_english \
        --config.data.root=FEATURE_DIR

wav2vec 512, ResNet-50 342, RoBERTa 768; 7 emotions, 9 intents; the release's split. Not run: the
corpus is given on request. The released script for English takes batches of one utterance; here
they are 32, as in its script for Mandarin.
"""

from configs import ei2


def get_config():
    c = ei2.get_config()
    c.unlock()
    c.data.splits = "split"
    c.data.clip_std = 0.0
    c.model.update(embedding=128, feedforward=2048)
    published = {"batch_size": 32, "learning_rate": 2e-4, "dropout": 0.5, "encoder_dropout": 0.5}
    c.stages.ei2_pretrain.update(constant_epochs=20, decay_epochs=40, **published)
    c.stages.ei2.update(constant_epochs=15, decay_epochs=45, context_dropout=0.4, **published)
    c.stages.ei2.patterns = "full"
    c.lock()
    return c

"""The L1 phone recogniser of Ai-TTS (METHODS §8).

    python -m mmer_jax.speech.train --config=configs/l1_recogniser.py --workdir=workdirs/l1

On the corpus that espeak-ng makes: 28 epochs of 8 s on one CPU core, under 5 minutes with corpus,
features, compiling and scoring. Phone error rate on test (new sentences and speakers) 2.3 %, AUC of
goodness between L1 and L2 1.000 (mmer_jax/speech/README.md).
"""

from mmer_jax.config import stage
from mmer_jax.speech.config import base


def get_config():
    c = base()
    c.method = "recogniser"
    c.model.channels = 128
    c.model.hidden = 128  # of each direction of an LSTM
    c.model.layers = 2
    c.model.cepstra = 26
    c.stages.recogniser = stage(
        batch_size=16,
        constant_epochs=14,
        decay_epochs=14,
        learning_rate=2e-3,
        clip=5.0,
        dropout=0.2,
        frame_weight=1.0,  # 0: CTC alone
        align_from=0,  # epoch from which it aligns utterances without TextGrid; 0: never
        warp=0.1,  # vocal tracts: mel bands are stretched by up to this share
        noise=0.7,  # share of the utterances that get noise
        mask_bands=16,  # SpecAugment: up to so many mel bands
        mask_frames=12,  # and so many frames are hidden
    )
    c.lock()
    return c

"""Ai-TTS: accented speech synthesis with explicit accent intensity (METHODS §8).

python -m mmer_jax.speech.train --config=configs/aitts.py --workdir=workdirs/aitts \
    --config.data.recogniser=workdirs/l1

26 minutes on one core. Spearman of requested and measured intensity 0.94, mel-cepstral distortion
2.3 dB for L1 and 3.3 dB for L2 (default corpus, test sentences; mmer_jax/speech/README.md).

Ablations: --config.model.control=utterance (one intensity for all phones), none (no intensity), and
--config.stages.aitts.consistency_weight=0 (no consistency constraint). configs/aitts_baseline.py
has the control that the paper compares with.
"""

from mmer_jax.config import stage
from mmer_jax.speech.config import base


def get_config():
    c = base()
    c.method = "aitts"
    c.data.recogniser = ""  # the workdir of a trained configs/l1_recogniser.py
    c.model.control = "phone"  # phone | utterance | none | adversarial (mmer_jax/speech/aitts.py)
    c.model.hidden = 128
    c.model.heads = 2
    c.model.kernel = 3  # of the transformer blocks' first convolution
    c.model.feedforward = 256
    c.model.encoder_blocks = 2
    c.model.decoder_blocks = 3
    c.model.post_channels = 128
    c.stages.aitts = stage(
        batch_size=8,
        constant_epochs=12,
        decay_epochs=18,
        learning_rate=1e-3,
        clip=1.0,
        dropout=0.1,
        duration_weight=0.5,
        pitch_weight=0.1,
        energy_weight=0.1,
        intensity_weight=0.5,
        consistency_weight=0.3,
        movement_weight=0.3,  # of made-up speech that moves as little or as much as recordings do
        consistency_from=5,  # the first epoch of both; before, there is little to measure
        consistency_rows=0.5,  # share of a batch's rows that say made-up requests
        adversary_weight=0.02,  # of the speaker classifier's loss (control=adversarial)
    )
    c.lock()
    return c

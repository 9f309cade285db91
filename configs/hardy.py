"""HARDY-MER (Liu et al., ACM MM 2025): dialogues, hardness, retrieved curriculum.

    python -m mmer_jax.main --config=configs/hardy.py --workdir=workdirs/hardy \
        --config.data.root=FEATURE_DIR --config.data.modalities="('audio','text','visual')"

Modalities are vectors per utterance; utterances.csv has `dialogue` and `turn` (without dialogues:
--config.data.dialogues=none).

The paper's networks are 256 wide and four blocks deep with a decoder of 1024, its learning rate
1e-4 throughout, its teacher trains 100 + 100 epochs and its student 25 + 25, each model for one
pattern, without clipping; its features are fine-tuned on four of five sessions before all five are
tested. Here features stay as they are, sizes and rates suit some thousands of utterances.
"""

from ml_collections import ConfigDict

from mmer_jax.config import base, stage


def get_config():
    c = base()
    c.method = "hardy"
    c.model.embedding = 64
    c.model.heads = 2
    c.model.depth = 2
    c.model.decoder = 128
    c.model.curriculum = ConfigDict(
        {
            "k": 3,  # neighbours; 0: ablation, no curriculum
            "retrieval": "encodings",  # of the first stage | features | random
            "hardness": "both",  # direct | indirect | off: all k neighbours for all
            "alpha_direct": 0.6,
            "alpha_indirect": 0.4,
            "beta": 4.0,
        }
    )
    c.quirks.curriculum_labels = "own"  # "query": neighbours get the utterance's label, as released
    settings = {
        "batch_size": 8,  # rows of dialogues: of IEMOCAP about 16 dialogues
        "learning_rate": 2e-3,
        "weight_decay": 1e-5,
        "dropout": 0.3,
    }
    c.stages.hardy_unimodal = stage(
        constant_epochs=10, decay_epochs=0, information_weight=0.1, **settings
    )
    settings |= {"constant_epochs": 5, "decay_epochs": 4, "reconstruction_weight": 1.0}
    c.stages.hardy_teacher = stage(**settings)
    c.stages.hardy = stage(**settings)
    c.lock()
    return c

"""EI² (Liu et al., 2024) under missing modalities: emotion and intent, every pattern in every step.

    python -m mmer_jax.main --config=configs/ei2.py --workdir=workdirs/ei2 \
        --config.data.root=FEATURE_DIR --config.data.labels="('emotion6','dialogue_act')"

utterances.csv needs dialogue, turn and speaker. Networks are the paper's; learning rates and epochs
are those that IF-MMIN got by validation (configs/ifmmin.py), so that the methods are compared
alike. configs/mc_eiu_english.py and mc_eiu_mandarin.py have the published training settings.
"""

from mmer_jax.config import base, stage


def get_config():
    c = base()
    c.method = "ei2"
    c.data.labels = ("emotion", "intent")
    c.model.classifier = (128, 64)
    c.model.text_widths = (2, 3, 4)
    c.model.fusion_heads = 4
    c.model.feedforward = 2048
    c.model.history = 2  # turns before; 0: ablation, no history
    c.model.history_missing = False  # True: what a pattern takes away, the turns before lack too
    c.model.context_layers = 2
    c.model.interaction = True  # False: ablation, as are the next two
    c.model.second_attention = True
    c.model.gate = True
    c.model.interaction_heads = 4
    c.model.imagination = False  # True: missing embeddings are imagined, by IF-MMIN's cascade
    c.model.cascade = (256, 128, 64)
    c.model.blocks = 5
    c.stages.ei2_pretrain = stage(
        batch_size=64,
        learning_rate=5e-4,
        b1=0.5,
        fusion_dropout=0.1,
        focus=0.0,
        cmd_weight=1.0,  # with imagination
    )
    c.stages.ei2 = stage(
        batch_size=64,
        learning_rate=5e-4,
        b1=0.5,
        fusion_dropout=0.1,
        context_dropout=0.4,
        patterns="missing",  # full: on full modality, as published
        focus=0.0,  # of the focal loss; 0: cross entropy
        init_from_pretrained=True,  # encoders and fusion start from the first stage
        imagination_weight=1.0,  # with imagination
        invariance_weight=10.0,
    )
    c.lock()
    return c

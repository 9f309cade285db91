"""EI² (Liu et al., 2024) under missing modalities: emotion and intent, every pattern in every step.

    python -m mmer_jax.main --config=configs/ei2.py --workdir=workdirs/ei2 \
        --config.data.root=FEATURE_DIR --config.data.labels="('emotion6','dialogue_act')"

utterances.csv needs dialogue, turn and speaker. Sizes suit some thousand utterances on a CPU;
dropouts and learning rates were chosen by validation (README). The paper's networks are 128 wide
with a fusion of 2048; configs/mc_eiu_english.py and mc_eiu_mandarin.py have these and the
published training settings.
"""

from mmer_jax.config import base, stage


def get_config():
    c = base()
    c.method = "ei2"
    c.data.labels = ("emotion", "intent")
    c.model.embedding = 64
    c.model.classifier = (128, 64)
    c.model.text_widths = (2, 3, 4)
    c.model.fusion_heads = 4
    c.model.feedforward = 256
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
    settings = {
        "batch_size": 64,
        "constant_epochs": 8,
        "decay_epochs": 4,
        "learning_rate": 1e-3,
        "b1": 0.5,
        "fusion_dropout": 0.1,
    }
    c.stages.ei2_pretrain = stage(
        **settings,
        encoder_dropout=0.0,
        dropout=0.3,
        focus=0.0,
        cmd_weight=1.0,  # with imagination
    )
    c.stages.ei2 = stage(
        **settings,
        encoder_dropout=0.1,
        dropout=0.1,
        context_dropout=0.2,
        patterns="missing",  # full: on full modality, as published
        focus=0.0,  # of the focal loss; 0: cross entropy
        init_from_pretrained=True,  # encoders and fusion start from the first stage
        imagination_weight=1.0,  # with imagination
        invariance_weight=10.0,
    )
    c.lock()
    return c

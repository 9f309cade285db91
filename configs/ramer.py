"""RAMER (Fan et al., 2024): missing modalities from the neighbours' hidden states.

    python -m mmer_jax.main --config=configs/ramer.py --workdir=workdirs/ramer \
        --config.data.root=FEATURE_DIR [--config.data.unlabelled="('MORE',)"]

The paper's method with networks of a size that suits some thousand utterances, on a CPU, too;
configs/ramer_paper.py has the published sizes. Dropouts lie between the
best two of six points tried on validation (README, "Tuned").
"""

from ml_collections import ConfigDict

from mmer_jax.config import base, stage


def get_config():
    c = base()
    c.method = "ramer"
    c.model.embedding = 128
    c.model.transformer = ConfigDict({"layers": 1, "heads": 8, "feedforward": 256})
    c.model.neighbours = 5
    c.model.retrieval = "nearest"  # ablations: "random" utterances, "none" (zeros)
    c.quirks.drop_first = False  # True: the first hit is never used, as released
    c.quirks.normalize_query = True  # False: hidden states of any norm are compared, as released
    c.stages.ramer_base = stage(learning_rate=5e-4, encoder_dropout=0.1, dropout=0.3)
    c.stages.ramer = stage(
        learning_rate=1e-3,
        dropout=0.3,
        encoder_dropout=0.1,
        refresh_epochs=0,  # n: encoders train on, and the database is made anew after n epochs
    )
    c.lock()
    return c

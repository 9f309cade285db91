"""IF-MMIN on a small real-valued set: 922 videos of CMU-MOSEI, a vector per modality and video.

    python -m mmer_jax.main --config=configs/mosei_ifmmin.py --workdir=workdirs/mosei_ifmmin \
        --config.data.root=FEATURE_DIR --config.data.nonfinite=missing --config.trials.seeds=5

526 videos train: smaller batches, so that there are enough updates, and weight decay. Chosen by
validation error (README, "What was tuned").
"""

from configs import ifmmin


def on_mosei(c, **settings):
    """A method's configuration on that set; `settings` are of all its stages."""
    c.data.modalities = ("text", "audio", "visual")
    c.data.label = "sentiment"
    c.data.splits = "split"
    for stage in c.stages.values():
        stage.update(batch_size=32, weight_decay=1e-2, **settings)
    return c


def get_config():
    return on_mosei(ifmmin.get_config(), learning_rate=1e-3)

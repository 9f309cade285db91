"""Defaults of the speech configurations, and what makes one valid."""

from ml_collections import ConfigDict

from mmer_jax.config import add_run_sections
from mmer_jax.errors import UserError
from mmer_jax.speech import intensity

# Keys that change how a run is carried out but not what is trained.
INCIDENTAL = (
    "data.cache",
    "data.corpus",  # its content has a fingerprint
    "data.recogniser",  # so have its parameters
    "data.source",
    "mesh.data",
    "mesh.devices",
    "checkpoint.every_seconds",
    "checkpoint.grace_seconds",
    "log.tensorboard",
)


def base() -> ConfigDict:
    """What every speech configuration starts from; unlocked."""
    c = ConfigDict()
    c.method = "recogniser"

    c.data = ConfigDict()
    c.data.corpus = ""  # a folder with utterances.csv; empty: the corpus that espeak-ng makes
    c.data.cache = "~/.cache/mmer_jax/speech"  # of that corpus, of features and records
    c.data.source = "records"  # records (TFRecords) | directory (in memory, no TensorFlow)

    c.intensity = ConfigDict()
    c.intensity.scaling = "quantile"  # quantile | minmax, of the goodness of the training phones
    c.intensity.quantile = intensity.EDGE  # of them at each end count as 0 and as 1

    c.model = ConfigDict()
    c.stages = ConfigDict()

    c.trials = ConfigDict()
    c.trials.seeds = 1

    add_run_sections(c)
    return c


def check_values(config: ConfigDict) -> None:
    """Refuse values that training would not understand."""
    for key, value, allowed in (
        ("data.source", config.data.source, ("records", "directory")),
        ("intensity.scaling", config.intensity.scaling, intensity.METHODS),
    ):
        if value not in allowed:
            raise UserError(f"{key} is '{value}'; choose one of: {', '.join(allowed)}")
    if not 0 <= config.intensity.quantile < 0.5:
        raise UserError(
            f"intensity.quantile is {config.intensity.quantile}; expected 0 to below 0.5"
        )
    if config.trials.seeds < 1:
        raise UserError(f"trials.seeds is {config.trials.seeds}; it must be at least 1")
    for name, stage in config.stages.items():
        least = {"batch_size": 1, "constant_epochs": 0, "decay_epochs": 0, "learning_rate": 0}
        for key, low in least.items():
            if stage[key] < low:
                raise UserError(f"stages.{name}.{key} is {stage[key]}; expected at least {low}")
        if stage.constant_epochs + stage.decay_epochs < 1:
            raise UserError(f"stages.{name} has no epoch")

"""The corpus that a configuration asks for, from TFRecords, a feature directory or made up."""

from mmer_jax import mirror
from mmer_jax.config import label_columns
from mmer_jax.data import feature_dir, synthetic
from mmer_jax.data.corpus import Corpus
from mmer_jax.errors import UserError


def load_corpus(config) -> Corpus:
    """The corpus of `config.data`; imports TensorFlow only for `data.source="records"`."""
    data = config.data
    if data.source == "synthetic":
        return synthetic.make_synthetic(
            names=tuple(data.modalities),
            label=label_columns(config),
            task=data.task,
            classes=tuple(data.classes),
            **config.synthetic,
        )
    if not data.root:
        raise UserError("no feature directory given; pass --config.data.root=DIR")
    args = {
        "label": label_columns(config),
        "task": data.task,
        "classes": tuple(data.classes),
        "nonfinite": data.nonfinite,
    }
    modalities = tuple(data.modalities)
    root = mirror.features(data.root, modalities)
    if data.source == "directory":
        return feature_dir.read_directory(root, modalities, **args)
    try:
        from mmer_jax.data import pipeline
    except ImportError as error:
        raise UserError(
            f"data.source='records' needs TensorFlow ({error}); install it, or pass "
            "--config.data.source=directory to read the feature directory itself"
        ) from error
    return pipeline.read_records(root, modalities, data.records_dir, **args)

"""Small corpora and recognisers for the tests of the speech part."""

from pathlib import Path

from mmer_jax.cli import load_config
from mmer_jax.speech.default_corpus import make_corpus, speakers

ROOT = Path(__file__).parent.parent.parent


def tiny_corpus(folder: Path) -> Path:
    """34 utterances by espeak-ng: two training speakers of L1 and one of L2, all splits."""
    every = {speaker.name: speaker for speaker in speakers()}
    counts = {
        "en0": {"train": 10, "dev_seen": 1, "test_seen": 1},
        "en1": {"train": 8},
        "en8": {"dev": 3},
        "en10": {"test": 3},
        "es0": {"train": 4},
        "es2": {"dev": 2, "test": 2},
    }
    chosen = [every[n]._replace(counts=c) for n, c in counts.items()]
    make_corpus(folder, chosen)
    return folder


def tiny_config(corpus: Path, cache: Path):
    """The shipped configuration, shrunk."""
    config = load_config(str(ROOT / "configs" / "l1_recogniser.py"))
    with config.unlocked():
        config.data.corpus, config.data.cache = str(corpus), str(cache)
        config.model.channels, config.model.hidden, config.model.layers = 8, 8, 1
        config.stages.recogniser.update(batch_size=8, constant_epochs=2, decay_epochs=1)
        config.checkpoint.every_seconds = 0.0
        config.mesh.devices = 1
    return config

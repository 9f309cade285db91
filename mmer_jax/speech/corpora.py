"""Which corpus a configuration means, down to its batches."""

from pathlib import Path

from rich.console import Console

from mmer_jax.speech.corpus import SpeechCorpus, read_corpus
from mmer_jax.speech.dataset import SpeechData, open_features
from mmer_jax.speech.default_corpus import default_corpus
from mmer_jax.speech.extract import extract_features


def corpus_of(config) -> SpeechCorpus:
    """The folder `data.corpus`, or the corpus that espeak-ng makes."""
    if config.data.corpus:
        return read_corpus(config.data.corpus)
    return default_corpus(cache_of(config))


def cache_of(config) -> Path:
    """Where corpora, features and records are kept."""
    return Path(config.data.cache).expanduser()


def features_of(config, console: Console) -> Path:
    """The feature directory of the corpus, made when it is not there yet."""

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    return extract_features(corpus_of(config), cache_of(config), say)


def open_data(folder: Path, config) -> SpeechData:
    """A feature directory as `data.source` says."""
    return open_features(
        folder, source=config.data.source, records_dir=cache_of(config) / "records"
    )

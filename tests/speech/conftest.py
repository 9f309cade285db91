"""A corpus that espeak-ng has made, once for all tests of the speech part."""

from unittest import mock

import pytest
from speech_corpora import tiny_corpus

from mmer_jax.speech import dataset


@pytest.fixture(scope="session")
def spoken(tmp_path_factory):
    """The folder of a small corpus."""
    return tiny_corpus(tmp_path_factory.mktemp("speech") / "tiny")


@pytest.fixture(scope="module")
def one_width():
    """All batches are equally wide: a third of the programs to compile."""
    with mock.patch.object(dataset, "N_BUCKETS", 1):
        yield

"""A corpus that espeak-ng has made, once for all tests of the speech part."""

import pytest
from speech_corpora import tiny_corpus


@pytest.fixture(scope="session")
def spoken(tmp_path_factory):
    """The folder of a small corpus."""
    return tiny_corpus(tmp_path_factory.mktemp("speech") / "tiny")

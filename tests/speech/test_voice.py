"""The synthesiser: who may speak, how strong, and that company changes nothing."""

import numpy as np
import pytest
from aitts_setting import make_synthesiser

from mmer_jax.errors import UserError
from mmer_jax.speech.phones import pronounce, sequence
from mmer_jax.speech.synthesize import describe, request_of, speak
from mmer_jax.speech.voice import Request

SAID = pronounce("we call", "W IY | K AO L")
PHONES, WORDS = sequence(SAID)


@pytest.fixture(scope="module")
def synthesiser():
    return make_synthesiser()


def request(**changes) -> Request:
    return Request(PHONES, WORDS, "cmn0", "cmn", 0.5)._replace(**changes)


def test_speech_is_the_same_alone_and_in_company(synthesiser):
    longer = np.concatenate([PHONES[:-1], PHONES[1:]]), np.concatenate([WORDS[:-1], WORDS[1:]])
    company = [request(), request(phones=longer[0], words=longer[1], intensity=None)]
    alone, together = synthesiser.speak(company[:1])[0], synthesiser.speak(company)[0]
    np.testing.assert_array_equal(together.durations, alone.durations)
    np.testing.assert_allclose(together.mel, alone.mel, atol=1e-4)
    assert len(alone.mel) == alone.durations.sum()


def test_intensities_are_what_was_asked(synthesiser):
    asked = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0], np.float32)
    requests = [request(intensity=0.3), request(intensity=asked), request(intensity=None)]
    whole, each, own = synthesiser.speak(requests)
    assert whole.intensity[1:-1].mean() == pytest.approx(0.3, abs=1e-3)
    np.testing.assert_array_equal(each.intensity, asked)
    assert (own.intensity[1:-1] > 0).all() and own.intensity[0] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accent": "xx"}, "--accent is 'xx'; expected one of: cmn, de"),
        ({"speaker": "bob"}, "--speaker is 'bob'; expected one of: en0, cmn0, de0"),
        ({"accent": "", "speaker": "en0"}, "an intensity of 0.5 needs an accent"),
        ({"phones": np.tile(PHONES, 9)}, "63 phones, the longest in training had 12"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(synthesiser, changes, message):
    with pytest.raises(UserError, match=message):
        synthesiser.speak([request(**changes)])


def test_without_intensities_none_may_be_asked():
    with pytest.raises(UserError, match="trained without intensities"):
        make_synthesiser(control="none").speak([request()])


def test_flags_become_a_request(synthesiser):
    found = request_of(synthesiser, SAID, "de", "", "0.2,0.8")
    assert (found.speaker, found.accent) == ("de0", "de")
    np.testing.assert_allclose(found.intensity, [0, 0.2, 0.2, 0.8, 0.8, 0.8, 0])
    assert request_of(synthesiser, SAID, "cmn", "en0", "0.7").intensity == pytest.approx(0.7)
    assert request_of(synthesiser, SAID, "", "", "").intensity is None


def test_what_was_spoken_is_said_word_by_word(synthesiser):
    wanted = request()
    timed = speak(synthesiser, wanted, lambda mel: np.zeros(256 * len(mel), np.float32))
    text = describe(timed, wanted, SAID, "phone")
    assert "speaker cmn0, accent cmn, intensity 0.50" in text
    assert "real-time factor" in text
    assert text.splitlines()[-1].split()[0] == "call"

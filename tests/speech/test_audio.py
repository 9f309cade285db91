"""Audio of any rate, and audio that is refused by name."""

import numpy as np
import pytest
import soundfile

from mmer_jax.errors import UserError
from mmer_jax.speech.audio import read_audio, write_audio


def tone(rate, seconds=0.5, frequency=440.0, level=0.3):
    return level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_any_rate_becomes_16_khz(tmp_path, rate):
    soundfile.write(tmp_path / "x.wav", tone(rate), rate, subtype="FLOAT")
    audio = read_audio(tmp_path / "x.wav")
    assert audio.dtype == np.float32 and len(audio) == 8000
    inner = slice(500, -500)
    np.testing.assert_allclose(audio[inner], tone(16000)[inner], atol=2e-3)


def test_channels_are_averaged_and_flac_is_read(tmp_path):
    stereo = np.stack([tone(16000), 0 * tone(16000)], axis=1)
    soundfile.write(tmp_path / "x.flac", stereo, 16000)
    np.testing.assert_allclose(read_audio(tmp_path / "x.flac"), tone(16000) / 2, atol=1e-4)


def test_what_is_written_reads_back(tmp_path):
    write_audio(tmp_path / "x.wav", tone(16000).astype(np.float32))
    np.testing.assert_allclose(read_audio(tmp_path / "x.wav"), tone(16000), atol=1e-4)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(8000), "is silent"),
        (np.full(8000, 1e-6), "is silent: its level is -120 dB"),
        (np.clip(tone(16000, level=3.0), -1, 1), "is clipped"),
        (np.zeros(0), "holds no audio"),
        (np.where(np.arange(8000) == 77, np.nan, tone(16000)), "not finite"),
        (tone(16000, seconds=61.0), "is 61 s long"),
    ],
)
def test_bad_audio_is_refused_by_name(tmp_path, samples, message):
    path = tmp_path / "take3.wav"
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    with pytest.raises(UserError, match="take3.wav") as caught:
        read_audio(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"RIFF\0\0", b"not audio at all" * 50])
def test_files_that_are_no_audio_are_refused(tmp_path, content):
    path = tmp_path / "take4.wav"
    path.write_bytes(content)
    with pytest.raises(UserError, match="take4.wav cannot be read as audio"):
        read_audio(path)


def test_touching_full_scale_now_and_then_is_not_clipping(tmp_path):
    samples = tone(16000, level=0.9)
    samples[::500] = 1.0
    soundfile.write(tmp_path / "x.wav", samples, 16000, subtype="FLOAT")
    assert len(read_audio(tmp_path / "x.wav")) == 8000


def test_what_cannot_be_written_is_said(tmp_path):
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(UserError, match="folder.wav cannot be written"):
        write_audio(tmp_path / "folder.wav", tone(16000))

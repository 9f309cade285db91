"""Audio files: wav or flac of any rate in, 16 kHz mono out; and what is refused."""

import math
from pathlib import Path

import numpy as np

from mmer_jax.errors import UserError
from mmer_jax.speech.features import RATE

LONGEST = 60.0  # seconds of an utterance; longer recordings are to be cut first
SILENCE = 1e-4  # root mean square of what counts as silent, -80 dB
CLIPPED_SHARE = 1e-3  # of samples in flat tops at full scale
FULL_SCALE = 0.999


def read_audio(path: Path) -> np.ndarray:
    """[n] float32 at 16 kHz, the mean of the channels.

    Raises:
      UserError: the file cannot be read, or is empty, silent, clipped, not finite or longer than a
        minute.
    """
    soundfile = _soundfile()
    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            if file.frames > LONGEST * rate:
                raise UserError(
                    f"{path} is {file.frames / rate:.0f} s long, at most {LONGEST:.0f} s are read; "
                    "cut it into utterances"
                )
            audio = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        raise UserError(f"{path} cannot be read as audio: {error}") from None
    check_audio(audio, str(path))
    return resample(audio.mean(axis=1), rate)


def check_audio(audio: np.ndarray, source: str) -> None:
    """Refuse audio [n] or [n, channels] of full scale 1 that says nothing, or not what was said."""
    if not audio.size:
        raise UserError(f"{source} holds no audio")
    if not np.isfinite(audio).all():
        raise UserError(f"{source} holds numbers that are not finite")
    level = float(np.sqrt(np.mean(np.square(audio, dtype=np.float64))))
    if level < SILENCE:
        raise UserError(f"{source} is silent: its level is {_decibel(level)}, record it again")
    top = np.abs(audio.reshape(len(audio), -1)) >= FULL_SCALE
    flat = top[:-2] & top[1:-1] & top[2:]  # a single sample may touch the top
    share = float(flat.any(axis=1).mean()) if len(flat) else 0.0
    if share > CLIPPED_SHARE:
        raise UserError(
            f"{source} is clipped: {100 * share:.1f} % of its samples stand at full scale; record "
            "it again at a lower level"
        )


def resample(audio: np.ndarray, rate: int) -> np.ndarray:
    """Audio [n] of any rate -> float32 at 16 kHz."""
    from scipy.signal import resample_poly

    if rate == RATE:
        return audio.astype(np.float32)
    common = math.gcd(rate, RATE)
    return resample_poly(audio, RATE // common, rate // common).astype(np.float32)


def write_audio(path: Path, audio: np.ndarray, rate: int = RATE) -> None:
    """Write audio [n] within ±1 in 16 bits; the ending chooses wav or flac.

    Raises:
      UserError: the file cannot be written.
    """
    soundfile = _soundfile()
    try:
        soundfile.write(path, np.clip(audio, -1, 1), rate, subtype="PCM_16")
    except (soundfile.SoundFileError, OSError) as error:
        raise UserError(f"{path} cannot be written: {error}") from None


def _decibel(level: float) -> str:
    return f"{20 * math.log10(level):.0f} dB" if level else "0"


def _soundfile():
    try:
        import soundfile
    except ImportError:
        raise UserError("audio needs soundfile; pip install 'mmer_jax[speech]'") from None
    return soundfile

"""What is computed of 16 kHz audio, every 16 ms: log-mel spectrum, energy and pitch.

Frame t is centred on sample t · HOP of the audio, whose ends are reflected.
"""

import functools

import numpy as np

from mmer_jax.errors import UserError

RATE = 16_000  # Hz
WINDOW = 1024  # samples, 64 ms
HOP = 256  # samples, 16 ms
N_MELS = 80
HIGHEST = 8000.0  # Hz, of the mel bands
FLOOR = 1e-5  # of magnitudes, before the logarithm
PITCH_RANGE = (60.0, 500.0)  # Hz
FRAME_SECONDS = HOP / RATE


def n_frames(samples: int) -> int:
    """Frames of so many samples."""
    return 1 + samples // HOP


@functools.cache
def mel_basis() -> np.ndarray:
    """[80, 513] Slaney's mel bands from 0 to 8000 Hz, each of unit area."""
    librosa = _librosa()
    return librosa.filters.mel(sr=RATE, n_fft=WINDOW, n_mels=N_MELS, fmin=0.0, fmax=HIGHEST)


def magnitudes(audio: np.ndarray) -> np.ndarray:
    """[F, 513] magnitude spectrum of audio [n] under a Hann window."""
    count = n_frames(len(audio))
    # Written out because librosa's asks for numba, which takes seconds to start.
    half = WINDOW // 2
    if len(audio) <= half:  # too short to be reflected
        audio = np.pad(audio, (0, half + 1 - len(audio)))
    padded = np.pad(audio, half, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    starts = HOP * np.arange(count)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[starts]
    return np.abs(np.fft.rfft(frames * window.astype(np.float32), axis=1)).astype(np.float32)


def log_mel(spectrum: np.ndarray) -> np.ndarray:
    """[F, 80] natural logarithm of the mel bands of magnitudes [F, 513]."""
    # In double: how float32 is rounded depends on the threads that BLAS has, and on what is rounded
    # the fingerprint of a corpus, by which a workdir knows its own.
    bands = spectrum.astype(np.float64) @ mel_basis().T.astype(np.float64)
    return np.log(np.maximum(bands, FLOOR)).astype(np.float32)


def log_energy(spectrum: np.ndarray) -> np.ndarray:
    """[F] natural logarithm of the norm of each frame's magnitudes [F, 513]."""
    return np.log(np.maximum(np.linalg.norm(spectrum, axis=1), FLOOR)).astype(np.float32)


def pitch(audio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """([F] natural logarithm of F0 in Hz, [F] whether it is voiced) of audio [n].

    By WORLD's dio and stonemask. Unvoiced frames are interpolated; audio without any voice has
    100 Hz everywhere.
    """
    world = _world()
    samples = audio.astype(np.float64)
    low, high = PITCH_RANGE
    rough, times = world.dio(
        samples, RATE, f0_floor=low, f0_ceil=high, frame_period=1000 * FRAME_SECONDS
    )
    f0 = world.stonemask(samples, rough, times, RATE)
    count = n_frames(len(audio))
    f0 = np.pad(f0, (0, max(0, count - len(f0))))[:count]
    voiced = f0 > 0
    if not voiced.any():
        return np.full(count, np.log(100.0), np.float32), voiced
    at = np.arange(count)
    return np.interp(at, at[voiced], np.log(f0[voiced])).astype(np.float32), voiced


def _librosa():
    try:
        import librosa
    except ImportError:
        raise UserError("mel bands need librosa; pip install 'mmer_jax[speech]'") from None
    return librosa


def _world():
    try:
        import pyworld
    except ImportError:
        raise UserError("pitch needs pyworld; pip install 'mmer_jax[speech]'") from None
    return pyworld

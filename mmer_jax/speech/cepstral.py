"""Mel-cepstral distortion: how far a synthesised spectrogram is from a recording, in decibels."""

import numpy as np
from jaxtyping import Float
from scipy.fft import dct

ORDER = 13


def cepstra(mel: Float[np.ndarray, "F M"], order: int = ORDER) -> Float[np.ndarray, "F order"]:
    """Cepstral coefficients 1 to `order` of a natural-log mel spectrogram, loudness left out.

    The log magnitude is c_0 + Σ c_m cos(π m (k + 1/2) / M) over the bands k, which is how
    mel-cepstra of minimum phase are counted; then the distortion is the spectra's distance in dB.
    """
    return dct(mel, type=2, axis=1)[:, 1 : order + 1] / mel.shape[1]


def distortion(
    mel: Float[np.ndarray, "F M"], reference: Float[np.ndarray, "R M"], order: int = ORDER
) -> float:
    """Mel-cepstral distortion in dB, frames matched by dynamic time warping.

    The mean along the cheapest path of (10 / ln 10) · √(2 Σ (c - c')²) (Kubichek 1993).
    """
    import librosa  # takes seconds, and only this function needs it

    ours, theirs = cepstra(mel, order), cepstra(reference, order)
    total, path = librosa.sequence.dtw(ours.T, theirs.T, metric="euclidean")
    return float(10 / np.log(10) * np.sqrt(2) * total[-1, -1] / len(path))

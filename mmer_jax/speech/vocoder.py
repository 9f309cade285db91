"""From a log-mel spectrogram to audio: Griffin-Lim, or a network of the user's in an ONNX file.

An ONNX file holds a graph of known operations and no code, so a stranger's file can be opened
safely. Any network fits that was trained on mels as `features.log_mel` makes them (16 kHz, window
1024, hop 256, 80 Slaney bands of magnitudes up to 8 kHz, natural logarithm). HiFi-GAN's generator
is exported by

    torch.onnx.export(generator, torch.zeros(1, 80, 100), "vocoder.onnx",
                      input_names=["mel"], output_names=["audio"],
                      dynamic_axes={"mel": {2: "frames"}, "audio": {2: "samples"}})
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mmer_jax.errors import UserError
from mmer_jax.speech.features import HOP, N_MELS, WINDOW, mel_basis

Vocoder = Callable[[Float[np.ndarray, "F M"]], Float[np.ndarray, " n"]]
ROUNDS = 60  # of Griffin-Lim
LOUDEST = 0.95  # of full scale


def griffin_lim(mel: Float[np.ndarray, "F M"], rounds: int = ROUNDS) -> Float[np.ndarray, " n"]:
    """Audio whose magnitudes come near those of `mel`; phases are found by iteration.

    Griffin and Lim 1984, with the momentum of Perraudin et al. 2013 (librosa's). The first phases
    are random but the same in every call.

    Args:
      mel: natural logarithms, of `features.log_mel`.
      rounds: of the iteration.

    Returns:
      (F - 1) · 256 samples at 16 kHz, at most 0.95 loud.
    """
    librosa = _librosa()
    magnitudes = librosa.util.nnls(mel_basis(), np.exp(mel.T.astype(np.float32)))
    audio = librosa.griffinlim(
        magnitudes, n_iter=rounds, hop_length=HOP, win_length=WINDOW, n_fft=WINDOW, random_state=0
    )
    return bounded(audio)


def bounded(audio: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Softer as a whole where it would be cut off."""
    peak = np.abs(audio).max(initial=0.0)
    return (audio * min(1.0, LOUDEST / max(peak, 1e-9))).astype(np.float32)


class OnnxVocoder:
    """A vocoder network: float32 [1, 80, F] -> audio of 256 · F samples.

    Raises:
      UserError: the file is no ONNX file, takes or gives something else, or onnxruntime is not
        installed.
    """

    def __init__(self, path: Path):
        try:
            import onnxruntime
        except ImportError:
            raise UserError(
                f"--vocoder={path} needs onnxruntime, which is not installed: pip install "
                "onnxruntime"
            ) from None
        if not path.is_file():
            raise UserError(f"--vocoder={path} does not exist; expected an ONNX file")
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), providers=onnxruntime.get_available_providers()
            )
        except Exception as error:  # onnxruntime's errors have no common class of their own
            reason = str(error).splitlines()[0]
            raise UserError(f"--vocoder={path} is no ONNX file that can be run: {reason}") from None
        self._path, inputs = path, self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 3 or inputs[0].shape[1] != N_MELS:
            shapes = ", ".join(str(one.shape) for one in inputs)
            raise UserError(
                f"--vocoder={path} takes {shapes}; expected one input [1, {N_MELS}, frames]"
            )
        self._input = inputs[0].name

    def __call__(self, mel: Float[np.ndarray, "F M"]) -> Float[np.ndarray, " n"]:
        """Audio of a mel of natural logarithms."""
        given = {self._input: np.ascontiguousarray(mel.T[None], np.float32)}
        try:
            audio = np.asarray(self._session.run(None, given)[0], np.float32).reshape(-1)
        except Exception as error:  # as above
            reason = str(error).splitlines()[0]
            raise UserError(
                f"--vocoder={self._path} cannot make sound of {len(mel)} frames: {reason}; export "
                "it for any number of frames"
            ) from None
        if len(audio) != HOP * len(mel) or not np.isfinite(audio).all():
            raise UserError(
                f"--vocoder={self._path} made {len(audio)} samples of {len(mel)} frames; expected "
                f"{HOP} finite samples for each frame (16 kHz, hop {HOP})"
            )
        return bounded(audio)


def load_vocoder(path: Path | None) -> Vocoder:
    """The user's network, or Griffin-Lim where there is none."""
    return griffin_lim if path is None else OnnxVocoder(path)


def _librosa():
    try:
        import librosa
    except ImportError:
        raise UserError("Griffin-Lim needs librosa; pip install 'mmer_jax[speech]'") from None
    return librosa

"""The L1 phone recogniser: log-mel frames in, log posteriors of phones out.

Two convolutions (the second halves the frame rate), bidirectional LSTMs and a softmax over blank,
39 phones and silence. The mean spectrum of each utterance is taken away first, so that neither
level nor microphone matters. Everything is differentiable in the mel spectrum.
"""

import dataclasses
import json
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mmer_jax import mirror
from mmer_jax.checkpoint import finished_trials, load_final
from mmer_jax.errors import UserError
from mmer_jax.nn.layers import Dropout, Linear
from mmer_jax.speech.extract import STRIDE
from mmer_jax.speech.layers import BiLSTM, Convolution, frame_mask
from mmer_jax.speech.phones import N_SYMBOLS

STAGE = "recogniser"
SIZES = ("channels", "hidden", "layers", "cepstra")  # of the network, in section `model`
SPREAD = 2.0  # about the standard deviation of log-mel values of speech


class Network(nn.Module):
    """The recogniser's network.

    Attributes:
      channels: of the convolutions.
      hidden: of each direction of an LSTM.
      layers: of LSTMs.
      cepstra: of the mel spectrum that are kept. A window of 64 ms resolves the harmonics of the
        voice; the first cepstra keep the envelope, so that pitch is not taken for a phone.
    """

    channels: int
    hidden: int
    layers: int
    cepstra: int

    @nn.compact
    def __call__(
        self, mel: Float[Array, "B F M"], n_frames: Int[Array, " B"], dropout=None
    ) -> Float[Array, "B G S"]:
        """Log posteriors of G = ceil(F / 2) frames; `dropout` is a rate, None turns it off."""
        x = centred(mel, n_frames) @ cosines(mel.shape[2], self.cepstra)
        x = nn.relu(nn.LayerNorm()(Convolution(self.channels, 5)(x, n_frames)))
        x = nn.relu(nn.LayerNorm()(Convolution(self.channels, 5, STRIDE)(x, n_frames)))
        count = posterior_frames(n_frames)
        for _ in range(self.layers):
            x = BiLSTM(self.hidden)(Dropout()(x, dropout), count)
        logits = Linear(N_SYMBOLS)(Dropout()(x, dropout))
        return jax.nn.log_softmax(logits, axis=-1)


def centred(mel: Float[Array, "B F M"], n_frames: Int[Array, " B"]) -> Float[Array, "B F M"]:
    """Each band without its mean over the utterance, in units of `SPREAD`."""
    real = frame_mask(n_frames, mel.shape[1])[..., None]
    total = jnp.sum(jnp.where(real, mel, 0.0), axis=1, keepdims=True)
    mean = total / jnp.maximum(n_frames, 1)[:, None, None]
    return jnp.where(real, (mel - mean) / SPREAD, 0.0)


def cosines(bands: int, count: int) -> np.ndarray:
    """[bands, count] orthonormal cosines from the slowest on (DCT-II)."""
    angle = np.pi * (np.arange(bands) + 0.5)[:, None] * np.arange(count)[None] / bands
    scale = np.where(np.arange(count) == 0, 1.0, np.sqrt(2.0))[None] / np.sqrt(bands)
    return (scale * np.cos(angle)).astype(np.float32)


def posterior_frames(n_frames):
    """Frames of the posteriors of so many feature frames."""
    return -(-n_frames // STRIDE)


def make_network(model) -> Network:
    """The network of a configuration's section `model`."""
    return Network(**{name: model[name] for name in SIZES})


@dataclasses.dataclass(frozen=True)
class Recogniser:
    """A trained recogniser.

    Attributes:
      fingerprint: of its parameters.
    """

    network: Network
    params: dict
    fingerprint: str

    def log_posteriors(
        self, mel: Float[Array, "B F M"], n_frames: Int[Array, " B"]
    ) -> Float[Array, "B G S"]:
        """Log posteriors; pure, for use inside `jit` and under `grad`."""
        posteriors = self.network.apply({"params": self.params}, mel, n_frames)
        assert isinstance(posteriors, jax.Array)
        return posteriors


def load_recogniser(workdir: str | Path, seed: int = 0) -> Recogniser:
    """The recogniser of a finished run of `python -m mmer_jax.speech.train`.

    Args:
      workdir: a folder or gs://...
      seed: which of its trials.

    Raises:
      UserError: `workdir` is not one, or has not been trained to the end, or not with this seed.
    """
    workdir = mirror.folder(str(workdir))
    path = workdir / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))["config"]
        sizes = {name: config[f"model.{name}"] for name in SIZES}
        right = config["method"] == STAGE
    except (OSError, ValueError, KeyError, TypeError):
        right = False
    if not right:
        raise UserError(
            f"{workdir} is no workdir of a recogniser; train one with python -m "
            f"mmer_jax.speech.train --config=configs/l1_recogniser.py --workdir={workdir}"
        )
    trial = finished_trials(workdir).get(f"seed{seed}")
    if trial is None:
        raise UserError(f"{workdir} has no finished recogniser of seed {seed}; train it to the end")
    stored = load_final(workdir, trial.group)[STAGE]
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf[trial.position]), stored)
    return Recogniser(Network(**sizes), params["network"], fingerprint(params))


def fingerprint(params) -> str:
    """A hash of parameters."""
    import hashlib

    digest = hashlib.blake2b(digest_size=8)
    for path, leaf in jax.tree.leaves_with_path(params):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()

"""A tiny Ai-TTS, a judge that hears at random, and a batch: for the tests beside this file."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mmer_jax.speech.aitts import AiTTS, Judge
from mmer_jax.speech.batch import SpeechBatch
from mmer_jax.speech.features import N_MELS
from mmer_jax.speech.intensity import IntensityScale
from mmer_jax.speech.phones import N_SYMBOLS, SIL
from mmer_jax.speech.recogniser import STRIDE, posterior_frames

SPEAKERS = ("en0", "cmn0", "de0")
ACCENTS = ("", "cmn", "de")


class RandomRecogniser:
    """Posteriors by one random matrix; differentiable, and of the same frames as the real one."""

    def __init__(self):
        self.kernel = 0.1 * jax.random.normal(jax.random.key(5), (STRIDE * N_MELS, N_SYMBOLS))

    def log_posteriors(self, mel, n_frames):
        del n_frames
        frames = posterior_frames(mel.shape[1])
        padded = jnp.pad(mel, ((0, 0), (0, STRIDE * frames - mel.shape[1]), (0, 0)))
        return jax.nn.log_softmax(padded.reshape(len(mel), frames, -1) @ self.kernel)


JUDGE = Judge(RandomRecogniser(), IntensityScale(low=-3.0, high=0.0, method="minmax"))


def model_settings(**changes) -> ConfigDict:
    """config.model, tiny."""
    return ConfigDict(
        {
            **{"hidden": 8, "heads": 2, "kernel": 3, "feedforward": 16, "post_channels": 8},
            **{"encoder_blocks": 1, "decoder_blocks": 1, "control": "phone"},
            **changes,
        }
    )


def make_model(**changes) -> tuple[AiTTS, dict]:
    """(model, parameters)."""
    model = AiTTS(model_settings(**changes), len(SPEAKERS), len(ACCENTS), JUDGE)
    return model, model.init(jax.random.key(0), jnp.full(N_MELS, -4.0), jnp.full(N_MELS, 2.0))


def make_batch(seed: int = 0, rows: int = 4, frames: int = 24, phones: int = 8) -> SpeechBatch:
    """Utterances of different length; the last row is padding."""
    draw = np.random.default_rng(seed)
    n_phones = draw.integers(4, phones + 1, rows)
    place = np.arange(phones)[None]
    spoken = (place > 0) & (place < n_phones[:, None] - 1)
    ids = np.where(spoken, draw.integers(1, SIL, (rows, phones)), SIL)
    durations = np.where(place < n_phones[:, None], draw.integers(1, 4, (rows, phones)), 0)

    def number(low, high):
        return np.where(spoken, draw.uniform(low, high, (rows, phones)), 0.0).astype(np.float32)

    return SpeechBatch(
        mel=draw.normal(-4, 2, (rows, frames, N_MELS)).astype(np.float32),
        n_frames=durations.sum(axis=1).astype(np.int32),
        phones=np.where(place < n_phones[:, None], ids, 0).astype(np.int32),
        n_phones=n_phones.astype(np.int32),
        durations=durations.astype(np.int32),
        pitch=number(-1, 1),
        energy=number(-1, 1),
        intensity=number(0, 1),
        speaker=np.arange(rows, dtype=np.int32) % len(SPEAKERS),
        accent=np.arange(rows, dtype=np.int32) % len(ACCENTS),
        words=np.where(spoken, (place - 1) // 2, -1).astype(np.int32),
        weights=(np.arange(rows) < rows - 1).astype(np.float32),
    )

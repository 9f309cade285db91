"""A tiny Ai-TTS, a judge that was never trained, and data: for the tests beside this file."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mmer_jax.data.corpus import MemorySource, RawModality
from mmer_jax.speech.aitts import AiTTS, Judge
from mmer_jax.speech.batch import SpeechBatch
from mmer_jax.speech.dataset import SpeechData
from mmer_jax.speech.features import N_MELS
from mmer_jax.speech.intensity import IntensityScale
from mmer_jax.speech.phones import SIL
from mmer_jax.speech.recogniser import Network, Recogniser
from mmer_jax.speech.voice import Synthesiser

SPEAKERS = ("en0", "cmn0", "de0")
ACCENTS = ("", "cmn", "de")


def make_judge() -> Judge:
    """A small recogniser that was never trained."""
    network = Network(channels=8, hidden=8, layers=1, cepstra=12)
    init = jax.jit(network.init)
    params = init(jax.random.key(5), jnp.zeros((1, 8, N_MELS)), jnp.full(1, 8))["params"]
    params = jax.tree.map(lambda leaf: 3 * leaf, params)  # posteriors that are not all alike
    return Judge(Recogniser(network, params, "untrained"), IntensityScale(-3.0, 0.0, "minmax"))


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
    model = AiTTS(model_settings(**changes), len(SPEAKERS), len(ACCENTS), make_judge())
    statistics = jnp.full(N_MELS, -4.0), jnp.full(N_MELS, 2.0)
    return model, jax.jit(model.init)(jax.random.key(0), *statistics)


def make_synthesiser(**changes) -> Synthesiser:
    """An untrained model with three voices."""
    voices = dict(zip(SPEAKERS, ACCENTS, strict=True))
    return Synthesiser(*make_model(**changes), SPEAKERS, ACCENTS, voices, longest=12)


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


def make_data(utterances: int = 12) -> SpeechData:
    """An annotated corpus in memory: ten of training, one of dev, one of test."""
    rows = [make_batch(i, rows=2) for i in range(utterances)]
    mels, phones = [], []
    for batch in rows:
        n = batch.n_phones[0]
        columns = ("phones", "words", "durations", "pitch", "energy", "energy", "intensity")
        phones.append(np.stack([getattr(batch, name)[0, :n] for name in columns], axis=1))
        mels.append(batch.mel[0, : batch.n_frames[0]])
    lengths = {"mel": [len(x) for x in mels], "phones": [len(x) for x in phones]}
    packed = {
        name: RawModality(np.concatenate(parts).astype(np.float32), np.array(lengths[name]), "x")
        for name, parts in {"mel": mels, "phones": phones}.items()
    }
    speaker = np.arange(utterances) % len(SPEAKERS)
    columns = {
        "utt_id": np.array([f"u{i}" for i in range(utterances)]),
        "text": np.array([f"sentence {i}" for i in range(utterances)]),
        "speaker": np.array(SPEAKERS)[speaker],
        "accent": np.array(ACCENTS)[speaker],
        "split": np.array(["dev_seen", "test_seen", *["train"] * (utterances - 2)]),
    }
    columns["speaker"][:2], columns["accent"][:2] = SPEAKERS[0], ACCENTS[0]
    return SpeechData(
        columns,
        MemorySource(packed),
        np.array(lengths["mel"], np.int32),
        np.array(lengths["phones"], np.int32),
        "made up",
    )

"""A synthetic corpus whose modalities are correlated but complementary.

A few latent factors depend on the emotion. Each modality observes its own subset of them through a
random map, with noise, its speaker's offset and its own nuisance factors. Every factor is seen by
two modalities with different noise: what a missing modality would have said can partly be inferred
from the others, and each knows something that the others do not. Classes differ in factors that
no single modality sees all of.
"""

import numpy as np

from mmer_jax.data import feature_dir
from mmer_jax.data.corpus import Corpus, RawModality, from_raw
from mmer_jax.errors import UserError

EMOTIONS = ("angry", "happy", "neutral", "sad", "excited", "frustrated")
INTENTS = ("ask", "agree", "comfort", "inform")
SHARED_FACTORS = 4  # between each pair of modalities


def make_synthetic(
    *,
    n_utterances: int = 1000,
    n_sessions: int = 5,
    n_classes: int = 4,
    vector_dims: tuple[int, ...] = (20,),
    sequence_dims: tuple[tuple[int, int], ...] = ((24, 16), (20, 12)),
    noise: float = 1.0,
    seed: int = 0,
    names: tuple[str, ...] = ("audio", "text", "visual"),
    label: str | tuple[str, ...] = "emotion",
    **corpus_args,
) -> Corpus:
    """A corpus in memory: utt_id, dialogue, turn, speaker, session, emotion, intent, valence.

    The intent depends on the emotions of the utterance and of the turn before it, and every eighth
    is missing.

    Args:
      n_utterances: in all, spread over sessions of two speakers each.
      n_sessions: sessions.
      n_classes: emotions, at most 6.
      vector_dims: D of each vector modality.
      sequence_dims: (D, longest sequence) of each sequence modality; these come first.
      noise: standard deviation of observation noise; factors of a class have unit spread.
      seed: of everything.
      names: of the modalities, sequences first.
      label: "emotion", "intent", both, or the real-valued "valence".
      **corpus_args: task, classes as of `corpus.assemble`.
    """
    if not 2 <= n_classes <= len(EMOTIONS):
        raise UserError(f"a synthetic corpus has 2 to {len(EMOTIONS)} classes, not {n_classes}")
    n_modalities = len(sequence_dims) + len(vector_dims)
    if len(names) != n_modalities:
        raise UserError(
            f"the synthetic corpus has {n_modalities} modalities; data.modalities names {names}"
        )
    rng = np.random.default_rng(seed)
    classes = rng.integers(n_classes, size=n_utterances)
    session = np.sort(rng.integers(n_sessions, size=n_utterances))
    speaker = 2 * session + rng.integers(2, size=n_utterances)
    pairs = [(i, j) for i in range(n_modalities) for j in range(i)]
    prototypes = rng.normal(size=(n_classes, len(pairs), SHARED_FACTORS))
    factors = prototypes[classes] + rng.normal(size=(n_utterances, len(pairs), SHARED_FACTORS))
    columns = _columns(rng, session, speaker, np.array(EMOTIONS)[classes], factors)
    sizes = [*sequence_dims, *((dim, 0) for dim in vector_dims)]
    raw = {}
    for m, (dim, max_steps) in enumerate(sizes):
        seen = np.concatenate([factors[:, p] for p, pair in enumerate(pairs) if m in pair], axis=1)
        # The two who share a factor hear it with different clarity.
        loudness = rng.uniform(0.5, 1.5, size=seen.shape[1])
        offset = 0.5 * rng.normal(size=(2 * n_sessions, dim))[speaker]
        signal = (seen * loudness) @ rng.normal(size=(seen.shape[1], dim)) / np.sqrt(seen.shape[1])
        # Saturated: the mean, which zeros stand for after normalisation, is no typical value.
        signal = 2 * np.tanh(2 * signal)
        raw[names[m]] = _observe(rng, signal + offset, max_steps, noise, f"synthetic {names[m]}")
    return from_raw(
        raw,
        columns,
        name="synthetic",
        label=label,
        **corpus_args,
        fingerprint=feature_dir.fingerprint(columns, raw),
    )


def _observe(rng, signal, max_steps: int, noise: float, source: str) -> RawModality:
    """A vector per utterance, or a sequence in whose middle the signal is clearest."""
    n, dim = signal.shape
    if not max_steps:
        features = signal + noise * rng.normal(size=(n, dim))
        return RawModality(features.astype(np.float32), None, source)
    lengths = rng.integers(max(1, max_steps // 3), max_steps + 1, size=n)
    lengths[0] = max_steps
    utterance = np.repeat(np.arange(n), lengths)
    step = np.arange(len(utterance)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    clarity = np.sin(np.pi * (step + 0.5) / lengths[utterance])[:, None]
    features = clarity * signal[utterance] + noise * rng.normal(size=(len(utterance), dim))
    return RawModality(features.astype(np.float32), lengths, source)


def _columns(rng, session, speaker, emotion, factors) -> dict[str, np.ndarray]:
    n = len(session)
    dialogue = [f"ses{s}_dia{d}" for s, d in zip(session, rng.integers(6, size=n), strict=True)]
    turns: dict[str, int] = {}
    turn = []
    for name in dialogue:
        turns[name] = turns.get(name, -1) + 1
        turn.append(turns[name])
    before = {
        (name, place + 1): own for name, place, own in zip(dialogue, turn, emotion, strict=True)
    }
    intent = [
        (EMOTIONS.index(own) + EMOTIONS.index(before.get((name, place), own))) % len(INTENTS)
        for name, place, own in zip(dialogue, turn, emotion, strict=True)
    ]
    valence = np.tanh(factors.mean(axis=(1, 2)) + 0.1 * rng.normal(size=n))
    return {
        "utt_id": np.array([f"utt{i:05d}" for i in range(n)]),
        "dialogue": np.array(dialogue),
        "turn": np.array(turn).astype(str),
        "speaker": np.array([f"spk{s}" for s in speaker]),
        "session": session.astype(str),
        "emotion": emotion,
        "intent": np.where(np.arange(n) % 8 == 7, "", np.array(INTENTS)[intent]),
        "valence": np.array([f"{v:.4f}" for v in valence]),
    }

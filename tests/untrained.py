"""Predictors without training: initial parameters, for what does not depend on good ones."""

import jax
import numpy as np
from helpers import shrunk

from configs import utt_fusion
from mmer_jax.data.corpus import CorpusSpec, Modality, Task
from mmer_jax.methods import make_stages
from mmer_jax.predictor import Predictor
from mmer_jax.trained import Member, TrainedRun

SPEC = CorpusSpec(
    (Modality("text", 4, 7), Modality("audio", 3), Modality("sound", 5, 11)),
    (Task("emotion", ("glad", "mad", "sad")),),
)
CLIP = 3.0


def untrained(config=None, *, spec=SPEC, count=3, **overrides):
    """`count` members, each with its own normalisation; overrides as of `shrunk`."""
    config = shrunk(config or utt_fusion.get_config(), **overrides)
    stages = make_stages(config, spec)

    def params(key):
        earlier = {}
        for stage in stages:
            earlier[stage.name] = stage.init(key, earlier)
        return earlier[stages[-1].name]

    rng = np.random.default_rng(0)
    weights = {
        "params": jax.jit(jax.vmap(params))(jax.random.split(jax.random.key(0), count)),
        "mean": {m.name: rng.normal(size=(count, m.dim)) for m in spec.modalities},
        "std": {m.name: rng.uniform(1, 2, size=(count, m.dim)) for m in spec.modalities},
        "label_mean": np.arange(count),
        "label_std": np.ones(count),
        "clip": np.full(count, CLIP),
    }
    weights = jax.tree.map(lambda x: np.asarray(x, np.float32), weights)
    members = tuple(Member(fold, 0) for fold in range(count))
    return Predictor(TrainedRun(stages[-1], spec, members, config.quirks.pad_masking, weights))


def utterances(n, *, seed=0, spec=SPEC):
    """Features of n complete utterances; sequences of all lengths up to training's longest."""
    rng = np.random.default_rng(seed)
    return {
        m.name: [rng.normal(size=(rng.integers(1, m.max_steps + 1), m.dim)) for _ in range(n)]
        if m.is_sequence
        else rng.normal(size=(n, m.dim))
        for m in spec.modalities
    }


def pick(features, rows):
    """The features of some utterances."""
    return {name: [given[i] for i in rows] for name, given in features.items()}

"""HARDY-MER: hardness-aware dynamic curriculum learning over dialogues.

Liu et al., "Hardness-aware dynamic curriculum learning for robust multimodal emotion recognition
with missing modalities", ACM MM 2025. METHODS §6. Three stages:

1. hardy_unimodal, full modality: each modality's encoder and a classifier of its own.

       L = Σ_m L_cls(m) - λ_I · mean over pairs of I(x; y)

2. hardy_teacher, missing patterns: starts from the encoders of 1, reconstructs what is missing,
   and then is frozen. It says how hard each training utterance is under each pattern (hardness.py).

       L = L_cls + λ_rec · ||reconstructed - true||² over the missing modalities

3. hardy, missing patterns: the student starts from 1 too and trains by the same loss, on every
   dialogue and on K copies of it, L the mean over these K + 1. In copy i each utterance is replaced
   by the i-th row of its curriculum: itself where it is too easy to have as many neighbours
   (curriculum.py). So of the dialogues that a step sees, a hard utterance is in fewer itself, and in
   more a neighbour, with that neighbour's features, label and missing modalities. The copies stand
   in the batch of the dialogue; context without a label stays as it is.

The published training takes a step for each copy in turn and trains one model per pattern; here all
copies and patterns are in one step of one model. Neighbours are searched among the fold's training
rows. Hardness is scaled over these rows, not over a batch, so that an utterance has one hardness.

Ablations (model.curriculum): k=0, no curriculum; hardness="off", all K neighbours for all;
"direct" or "indirect" alone; retrieval="random", or "features" instead of the encodings of stage 1.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mmer_jax.data.corpus import CorpusSpec
from mmer_jax.errors import UserError, shorten
from mmer_jax.losses import mean_over_patterns, task_losses, weighted_mean
from mmer_jax.methods.hardness import reconstruction_error
from mmer_jax.methods.hardy_curriculum import Curriculum
from mmer_jax.methods.hardy_networks import HardyNetworks, Turns
from mmer_jax.methods.stage import Batch, Params, Stage


def by_pattern(x: Float[Array, "U K L ..."]) -> Float[Array, "K B ..."]:
    """Of dialogues -> of utterances, patterns first."""
    x = jnp.moveaxis(x, 1, 0)
    return x.reshape(x.shape[0], -1, *x.shape[3:])


class Unimodal:
    """Stage 1."""

    def __init__(self, networks: HardyNetworks):
        self.networks = networks

    def init(self, key: Array, earlier) -> Params:
        del earlier
        keys, networks = jax.random.split(key, 3), self.networks
        return (
            networks.init_encoders(keys[0])
            | networks.init_heads(keys[1])
            | networks.init_cross(keys[2])
        )

    def loss(self, params: Params, batch: Batch, key, hyper):
        turns = Turns.of(batch)
        encoded = self.networks.encode(params, turns, hyper["dropout"], key)
        logits = self._logits(params, encoded)
        losses = task_losses(jnp.moveaxis(logits, 1, 0), batch.labels)  # [M, B]
        weights = batch.available[0].T * batch.weights[None]
        found = by_pattern(self.networks.informations(params, encoded, turns.keys).mean(axis=-1))
        terms = {
            "task": jnp.sum(jax.vmap(weighted_mean)(losses, weights)),
            "information": mean_over_patterns(found, batch.pattern_weights),
        }
        return terms["task"] - hyper["information_weight"] * terms["information"], terms

    def predict(self, params: Params, batch: Batch):
        """The classifiers of the modalities that are there, averaged."""
        encoded = self.networks.encode(params, Turns.of(batch))
        return jax.vmap(lambda available, logits: jnp.einsum("bm,bmc->bc", available, logits))(
            _shares(batch.available), self._logits(params, encoded)[None]
        )

    def _logits(self, params: Params, encoded) -> Float[Array, "B M C"]:
        return by_pattern(self.networks.classify_each(params, encoded))[0]

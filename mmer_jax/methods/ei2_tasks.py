"""What both stages of EI² have: encoders, fusion and a classifier for each task."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmer_jax.data.corpus import CorpusSpec
from mmer_jax.losses import task_terms
from mmer_jax.methods.ei2_imagination import Imagination
from mmer_jax.methods.encoding import ModalityEncoders, flatten
from mmer_jax.methods.stage import Batch, Params
from mmer_jax.nn.attention import TransformerLayer
from mmer_jax.nn.heads import FcClassifier
from mmer_jax.nn.layers import merge_rows

DROPOUTS = ("dropout", "encoder_dropout", "fusion_dropout", "context_dropout")
NO_DROPOUT = dict.fromkeys(DROPOUTS)
Tokens = Float[Array, "K B M h"]


class Understanding:
    """What both stages have: encoders, fusion and a classifier for each task."""

    def __init__(self, config, spec: CorpusSpec, settings):
        self.spec, self.focus, model = spec, settings.focus, config.model
        self.names = tuple(f"task{i}" for i in range(len(spec.tasks)))
        self.encoders = [
            ModalityEncoders(spec, model, config.quirks, f"{name}_encoder") for name in self.names
        ]
        self.fusion = TransformerLayer(model.fusion_heads, model.feedforward)
        self.classifiers = [
            FcClassifier(tuple(model.classifier), task.n_outputs) for task in spec.tasks
        ]
        self.imaginations = [
            Imagination(name, model, encoders)
            for name, encoders in zip(self.names, self.encoders, strict=True)
            if model.imagination
        ]
        self.zeros = jnp.zeros((1, len(spec.modalities), model.embedding))  # tokens of an utterance

    def init_networks(self, key: Array, read: Float[Array, "1 m h"]) -> Params:
        """`read`: zeros in the shape that classifiers read."""
        params: Params = {}
        for i, name in enumerate(self.names):
            keys = jax.random.split(jax.random.fold_in(key, i), 4)
            params |= self.encoders[i].init(keys[0])
            params[f"{name}_fusion"] = self.fusion.init(keys[1], self.zeros)["params"]
            classifier = self.classifiers[i].init(keys[2], flatten(read))
            params[f"{name}_classifier"] = classifier["params"]
            if self.imaginations:
                params |= self.imaginations[i].init_shared(keys[3])
        return params

    def encode(self, params: Params, batch: Batch, hyper, key):
        """Of each task (embeddings [B, M, h], those of what a pattern takes away [..., M, h])."""
        return [
            encoders(params, batch, hyper["encoder_dropout"], own_key)
            for encoders, own_key in zip(self.encoders, self.keys(key), strict=True)
        ]

    def fuse(self, params: Params, embeddings: list[Tokens], hyper, key) -> list[Tokens]:
        """Each task's tokens: its modalities' embeddings, having looked at each other."""
        tokens = []
        for name, mine, own_key in zip(self.names, embeddings, self.keys(key), strict=True):
            rows, restore = merge_rows(mine, inner=2)
            with jax.named_scope("fusion"):
                weights, rate = params[f"{name}_fusion"], hyper["fusion_dropout"]
                tokens.append(restore(apply(self.fusion, weights, own_key, rows, None, rate)))
        return tokens

    def classify(self, params: Params, read: list[Float[Array, "K B m h"]], hyper, key):
        """Logits [K, B, C], the tasks' side by side."""
        logits = []
        for i, (name, own_key) in enumerate(zip(self.names, self.keys(key), strict=True)):
            weights, rate = params[f"{name}_classifier"], hyper["dropout"]
            logits.append(apply(self.classifiers[i], weights, own_key, flatten(read[i]), rate))
        return jnp.concatenate(logits, axis=-1)

    def task_terms(self, outputs: Float[Array, "K B C"], batch: Batch) -> dict[str, Array]:
        return task_terms(self.spec, outputs, batch.labels, batch.pattern_weights, self.focus)

    def keys(self, key: Array | None):
        """One for each task."""
        return split(key, len(self.names))


def split(key: Array | None, count: int):
    """`count` keys; None each where there is no dropout."""
    return [None] * count if key is None else jax.random.split(key, count)


def apply(network, weights: Params, key: Array | None, *arguments):
    rngs = {} if key is None else {"dropout": key}
    return network.apply({"params": weights}, *arguments, rngs=rngs)

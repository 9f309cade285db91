"""utt_shared: full-modality fusion with an invariant encoder, IF-MMIN's first stage and teacher.

Zuo et al. 2023, §2.2: one SharedEncoder maps every modality's embedding to an invariant feature;
the central moment discrepancy between the modalities' batches pulls these together. The classifier
sees [embeddings ; invariants].
"""

import jax
import jax.numpy as jnp

from mmer_jax.data.corpus import CorpusSpec
from mmer_jax.losses import cmd_of_pairs, task_terms
from mmer_jax.methods.encoding import ModalityEncoders, choose, flatten
from mmer_jax.methods.stage import Stage
from mmer_jax.nn.heads import FcClassifier, SharedEncoder


class UttShared:
    """The networks and what is computed with them."""

    def __init__(self, config, spec: CorpusSpec):
        self.spec = spec
        self.encoders = ModalityEncoders(spec, config.model, config.quirks)
        self.shared = SharedEncoder()
        self.classifier = FcClassifier(tuple(config.model.classifier), spec.n_outputs)
        self.size = config.model.embedding
        self.width = 2 * len(spec.modalities) * self.size

    def init(self, key, earlier):
        del earlier
        encoder_key, shared_key, classifier_key = jax.random.split(key, 3)
        return self.encoders.init(encoder_key) | {
            "shared": self.shared.init(shared_key, jnp.zeros((1, self.size)))["params"],
            "classifier": self.classifier.init(classifier_key, jnp.zeros((1, self.width)))[
                "params"
            ],
        }

    def invariant(self, params, embeddings):
        """Modality-invariant features of embeddings, same shape."""
        return self.shared.apply({"params": params["shared"]}, embeddings)

    def classify(self, params, embeddings, invariants, dropout=None, key=None):
        """Logits [..., B, C] of embeddings and invariants, [..., B, M, h] each."""
        rngs = {} if key is None else {"dropout": key}
        both = jnp.concatenate([flatten(embeddings), flatten(invariants)], axis=-1)
        return self.classifier.apply({"params": params["classifier"]}, both, dropout, rngs=rngs)

    def loss(self, params, batch, key, hyper):
        encoder_key, classifier_key = jax.random.split(key)
        present, absent = self.encoders(params, batch, hyper["encoder_dropout"], encoder_key)
        embeddings = choose(batch.available[0], present, absent)
        invariants = self.invariant(params, embeddings)
        logits = self.classify(params, embeddings, invariants, hyper["dropout"], classifier_key)
        terms = task_terms(self.spec, logits[None], batch.labels, batch.weights[None])
        rows = jnp.where(batch.available[0], batch.weights[:, None], 0.0)
        discrepancy = cmd_of_pairs(invariants, rows)
        terms |= {"cmd": discrepancy}
        return terms["task"] + hyper["cmd_weight"] * discrepancy, terms

    def predict(self, params, batch):
        present, absent = self.encoders(params, batch)
        embeddings = choose(batch.available, present, absent)
        return self.classify(params, embeddings, self.invariant(params, embeddings))


def stages(config, spec: CorpusSpec) -> tuple[Stage, ...]:
    model, settings = UttShared(config, spec), config.stages.utt_shared
    return (
        Stage(
            name="utt_shared",
            settings=settings,
            patterns="full",
            init=model.init,
            loss=model.loss,
            predict=model.predict,
            invariants=lambda params, batch: model.invariant(
                params, model.encoders(params, batch)[0]
            ),
        ),
    )

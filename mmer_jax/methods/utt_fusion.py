"""utt_fusion: full-modality fusion, the lower baseline (METHODS §1).

Encoders, concatenation, classifier, trained on everything that is present. Scored with missing
modalities as zeros it shows what no treatment of missing modalities costs.
"""

import jax
import jax.numpy as jnp

from mmer_jax.data.corpus import CorpusSpec
from mmer_jax.losses import task_terms
from mmer_jax.methods.encoding import ModalityEncoders, choose, flatten
from mmer_jax.methods.stage import Stage
from mmer_jax.nn.heads import FcClassifier


class UttFusion:
    """The networks and what is computed with them."""

    def __init__(self, config, spec: CorpusSpec):
        self.spec = spec
        self.encoders = ModalityEncoders(spec, config.model, config.quirks)
        self.classifier = FcClassifier(tuple(config.model.classifier), spec.n_outputs)
        self.width = len(spec.modalities) * config.model.embedding

    def init(self, key, earlier):
        del earlier
        encoder_key, classifier_key = jax.random.split(key)
        classifier = self.classifier.init(classifier_key, jnp.zeros((1, self.width)))["params"]
        return self.encoders.init(encoder_key) | {"classifier": classifier}

    def classify(self, params, embeddings, dropout=None, key=None):
        """Logits [..., B, C] of embeddings [..., B, M, h]."""
        rngs = {} if key is None else {"dropout": key}
        variables = {"params": params["classifier"]}
        return self.classifier.apply(variables, flatten(embeddings), dropout, rngs=rngs)

    def loss(self, params, batch, key, hyper):
        encoder_key, classifier_key = jax.random.split(key)
        present, absent = self.encoders(params, batch, hyper["encoder_dropout"], encoder_key)
        embeddings = choose(batch.available, present, absent)
        logits = self.classify(params, embeddings, hyper["dropout"], classifier_key)
        terms = task_terms(self.spec, logits, batch.labels, batch.pattern_weights)
        return terms["task"], terms

    def predict(self, params, batch):
        present, absent = self.encoders(params, batch)
        return self.classify(params, choose(batch.available, present, absent))


def stages(config, spec: CorpusSpec) -> tuple[Stage, ...]:
    model, settings = UttFusion(config, spec), config.stages.utt_fusion
    return (
        Stage(
            name="utt_fusion",
            settings=settings,
            patterns="full",
            init=model.init,
            loss=model.loss,
            predict=model.predict,
        ),
    )

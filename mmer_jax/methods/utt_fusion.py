"""utt_fusion: full-modality fusion, the lower baseline (METHODS §1).

Encoders, concatenation, classifier, trained on everything that is present. Scored with missing
modalities as zeros it shows what no treatment of missing modalities costs.
"""

import jax
import jax.numpy as jnp

from mmer_jax.data.corpus import CorpusSpec
from mmer_jax.losses import task_loss, weighted_mean
from mmer_jax.methods.encoding import ModalityEncoders, choose, flatten
from mmer_jax.methods.stage import Stage
from mmer_jax.nn.heads import FcClassifier


def stages(config, spec: CorpusSpec) -> tuple[Stage, ...]:
    encoders = ModalityEncoders(spec, config.model, config.quirks)
    classifier = FcClassifier(tuple(config.model.classifier), spec.n_outputs)
    settings = config.stages.utt_fusion
    width = len(spec.modalities) * config.model.embedding

    def init(key, earlier):
        del earlier
        encoder_key, classifier_key = jax.random.split(key)
        return encoders.init(encoder_key) | {
            "classifier": classifier.init(classifier_key, jnp.zeros((1, width)))["params"]
        }

    def classify(params, embeddings, dropout=None, key=None):
        rngs = {} if key is None else {"dropout": key}
        variables = {"params": params["classifier"]}
        return classifier.apply(variables, flatten(embeddings), dropout, rngs=rngs)

    def loss(params, batch, key, hyper):
        encoder_key, classifier_key = jax.random.split(key)
        present, absent = encoders(params, batch, hyper["dropout"], encoder_key)
        embeddings = choose(batch.available[0], present, absent)
        logits = classify(params, embeddings, hyper["dropout"], classifier_key)
        ce = weighted_mean(task_loss(logits, batch.labels), batch.weights)
        return ce, {"ce": ce}

    def predict(params, batch):
        present, absent = encoders(params, batch)
        return jax.vmap(lambda a: classify(params, choose(a, present, absent)))(batch.available)

    return (
        Stage(
            name="utt_fusion",
            settings=settings,
            patterns="full",
            hyper={"learning_rate": settings.learning_rate, "dropout": settings.dropout},
            init=init,
            loss=loss,
            predict=predict,
        ),
    )

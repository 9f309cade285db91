"""utt_shared: full-modality fusion with an invariant encoder, IF-MMIN's first stage and teacher.

Zuo et al. 2023, §2.2: one SharedEncoder maps every modality's embedding to an invariant feature;
the central moment discrepancy between the modalities' batches pulls these together. The classifier
sees [embeddings ; invariants].
"""

import itertools

import jax
import jax.numpy as jnp

from mmer_jax.data.corpus import CorpusSpec
from mmer_jax.losses import cmd, task_loss, weighted_mean
from mmer_jax.methods.encoding import ModalityEncoders, choose, flatten
from mmer_jax.methods.stage import Stage
from mmer_jax.nn.heads import FcClassifier, SharedEncoder


def stages(config, spec: CorpusSpec) -> tuple[Stage, ...]:
    encoders = ModalityEncoders(spec, config.model, config.quirks)
    shared = SharedEncoder()
    classifier = FcClassifier(tuple(config.model.classifier), spec.n_outputs)
    settings = config.stages.utt_shared
    n_modalities, size = len(spec.modalities), config.model.embedding
    pairs = list(itertools.combinations(range(n_modalities), 2))

    def init(key, earlier):
        del earlier
        encoder_key, shared_key, classifier_key = jax.random.split(key, 3)
        both = jnp.zeros((1, 2 * n_modalities * size))
        return encoders.init(encoder_key) | {
            "shared": shared.init(shared_key, jnp.zeros((1, size)))["params"],
            "classifier": classifier.init(classifier_key, both)["params"],
        }

    def classify(params, embeddings, invariants, dropout=None, key=None):
        rngs = {} if key is None else {"dropout": key}
        both = jnp.concatenate([flatten(embeddings), flatten(invariants)], axis=-1)
        return classifier.apply({"params": params["classifier"]}, both, dropout, rngs=rngs)

    def loss(params, batch, key, hyper):
        encoder_key, classifier_key = jax.random.split(key)
        present, absent = encoders(params, batch, hyper["dropout"], encoder_key)
        embeddings = choose(batch.available[0], present, absent)
        invariants = shared.apply({"params": params["shared"]}, embeddings)
        logits = classify(params, embeddings, invariants, hyper["dropout"], classifier_key)
        ce = weighted_mean(task_loss(logits, batch.labels), batch.weights)
        rows = batch.available[0] * batch.weights[:, None]
        discrepancy = sum(
            cmd(invariants[:, i], invariants[:, j], x_weights=rows[:, i], y_weights=rows[:, j])
            for i, j in pairs
        ) / len(pairs)
        return ce + hyper["cmd_weight"] * discrepancy, {"ce": ce, "cmd": discrepancy}

    def predict(params, batch):
        present, absent = encoders(params, batch)

        def one_pattern(available):
            embeddings = choose(available, present, absent)
            invariants = shared.apply({"params": params["shared"]}, embeddings)
            return classify(params, embeddings, invariants)

        return jax.vmap(one_pattern)(batch.available)

    return (
        Stage(
            name="utt_shared",
            settings=settings,
            patterns="full",
            hyper={
                "learning_rate": settings.learning_rate,
                "dropout": settings.dropout,
                "cmd_weight": settings.cmd_weight,
            },
            init=init,
            loss=loss,
            predict=predict,
        ),
    )

"""IF-MMIN: invariant features for the missing modality imagination network.

Zuo, Liu, Zhao, Gao, Li: "Exploiting modality-invariant feature for robust multimodal emotion
recognition with missing modalities", ICASSP 2023. METHODS §3.

Stage 1 trains utt_shared on full modality. It is frozen and asked once for every utterance:
its embeddings (the imagination target) and its invariant features. Stage 2 trains the student on
missing patterns: encoders, SharedEncoder and a cascade that imagines the missing embeddings with
the invariant feature fed to each of its blocks.

    L = L_cls + λ_imagination · ||imagined − target||² + λ_invariance · ||invariant − ĥ||²   (eq. 4-6)

Ablations: model.invariant_input=False (the cascade gets no invariant feature),
stages.ifmmin.invariance_weight=0 (no invariance loss).
"""

import jax
import jax.numpy as jnp

from mmer_jax.data.corpus import CorpusSpec
from mmer_jax.losses import task_loss, weighted_mean
from mmer_jax.methods import utt_shared
from mmer_jax.methods.encoding import ModalityEncoders, choose, flatten
from mmer_jax.methods.stage import Batch, Stage
from mmer_jax.nn.cascade import InvariantCascade
from mmer_jax.nn.heads import FcClassifier, SharedEncoder


def stages(config, spec: CorpusSpec) -> tuple[Stage, ...]:
    (teacher,) = utt_shared.stages(config, spec)
    encoders = ModalityEncoders(spec, config.model, config.quirks)
    shared = SharedEncoder()
    cascade = InvariantCascade(tuple(config.model.cascade), config.model.blocks)
    classifier = FcClassifier(tuple(config.model.classifier), spec.n_outputs)
    settings = config.stages.ifmmin
    size = config.model.embedding
    width = len(spec.modalities) * size

    def init(key, earlier):
        keys = jax.random.split(key, 4)
        zeros = jnp.zeros((1, width))
        latents = jnp.zeros((1, config.model.blocks * config.model.cascade[-1]))
        networks = encoders.init(keys[0]) | {
            "shared": shared.init(keys[1], jnp.zeros((1, size)))["params"]
        }
        if settings.init_from_teacher:
            networks = {name: earlier["utt_shared"][name] for name in networks}
        return networks | {
            "cascade": cascade.init(keys[2], zeros, zeros)["params"],
            "classifier": classifier.init(keys[3], latents)["params"],
        }

    def constants(earlier):
        return {"teacher_absent": encoders.absent(earlier["utt_shared"])}

    def prepare(earlier, batch):
        params = earlier["utt_shared"]
        embeddings, absent = encoders(params, batch)
        full = choose(batch.present, embeddings, absent)
        return {
            "teacher_embeddings": embeddings,
            "teacher_invariants": shared.apply({"params": params["shared"]}, full),
        }

    def student(params, available, encoded, dropout=None, key=None):
        """(logits, imagined embeddings, invariant features) under one pattern [B, M]."""
        present, absent, present_invariant, absent_invariant = encoded
        embeddings = choose(available, present, absent)
        invariants = choose(available, present_invariant, absent_invariant)
        into_blocks = flatten(invariants)
        if not config.model.invariant_input:
            into_blocks = jnp.zeros_like(into_blocks)
        with jax.named_scope("cascade"):
            imagined, latents = cascade.apply(
                {"params": params["cascade"]}, flatten(embeddings), into_blocks
            )
        rngs = {} if key is None else {"dropout": key}
        logits = classifier.apply({"params": params["classifier"]}, latents, dropout, rngs=rngs)
        return logits, imagined.reshape(embeddings.shape), invariants

    def encode(params, batch, dropout=None, key=None):
        """Embeddings and invariants, present and absent: all that patterns choose from."""
        present, absent = encoders(params, batch, dropout, key)
        invariant = {"params": params["shared"]}
        return present, absent, shared.apply(invariant, present), shared.apply(invariant, absent)

    def loss(params, batch: Batch, key, hyper):
        encoder_key, classifier_key = jax.random.split(key)
        encoded = encode(params, batch, hyper["dropout"], encoder_key)
        teacher = batch.frozen["teacher_embeddings"], batch.constants["teacher_absent"]

        def one_pattern(available, key):
            logits, imagined, invariants = student(
                params, available, encoded, hyper["dropout"], key
            )
            # The teacher on the complement: missing modalities true, available ones absent.
            target = choose(batch.present & ~available, *teacher)
            rows = batch.weights * available.any(axis=1)
            # What the corpus never had cannot be a target.
            slots = rows[:, None] * batch.present
            invariance_error = (invariants - batch.frozen["teacher_invariants"]) ** 2
            return {
                "ce": weighted_mean(task_loss(logits, batch.labels), rows),
                "imagination": weighted_mean(jnp.mean((imagined - target) ** 2, -1), slots),
                "invariance": weighted_mean(jnp.mean(invariance_error, -1), slots),
            }

        keys = jax.random.split(classifier_key, len(batch.available))
        terms = jax.tree.map(jnp.mean, jax.vmap(one_pattern)(batch.available, keys))
        total = (
            terms["ce"]
            + hyper["imagination_weight"] * terms["imagination"]
            + hyper["invariance_weight"] * terms["invariance"]
        )
        return total, terms

    def predict(params, batch):
        encoded = encode(params, batch)
        return jax.vmap(lambda available: student(params, available, encoded)[0])(batch.available)

    return (
        teacher,
        Stage(
            name="ifmmin",
            settings=settings,
            patterns="missing",
            hyper={
                "learning_rate": settings.learning_rate,
                "dropout": settings.dropout,
                "imagination_weight": settings.imagination_weight,
                "invariance_weight": settings.invariance_weight,
            },
            init=init,
            loss=loss,
            predict=predict,
            prepare=prepare,
            constants=constants,
        ),
    )

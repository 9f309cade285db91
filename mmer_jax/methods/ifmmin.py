"""IF-MMIN: invariant features for the missing modality imagination network.

Zuo, Liu, Zhao, Gao, Li: "Exploiting modality-invariant feature for robust multimodal emotion
recognition with missing modalities", ICASSP 2023. METHODS §3.

Stage 1 trains utt_shared on full modality. It is frozen and asked once for every utterance:
its embeddings (the imagination target) and its invariant features. Stage 2 trains the student on
missing patterns: encoders, SharedEncoder and a cascade that imagines the missing embeddings with
the invariant feature fed to each of its blocks.

    L = L_cls + λ_imag · ||imagined − target||² + λ_inv · ||invariant − ĥ||²

Ablations: model.invariant_input=False (the cascade gets no invariant feature),
stages.ifmmin.invariance_weight=0 (no invariance loss).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmer_jax.data.corpus import CorpusSpec
from mmer_jax.losses import task_terms
from mmer_jax.methods import utt_shared
from mmer_jax.methods.encoding import ModalityEncoders, choose, flatten
from mmer_jax.methods.imagination import slot_error, teacher_constants, teacher_target
from mmer_jax.methods.stage import Batch, Params, Stage
from mmer_jax.nn.cascade import InvariantCascade
from mmer_jax.nn.heads import FcClassifier, SharedEncoder


class Encoded(NamedTuple):
    """All that the patterns choose from, of the batch and of an absent modality."""

    present: Float[Array, "B M h"]
    absent: Float[Array, "... M h"]
    present_invariant: Float[Array, "B M h"]
    absent_invariant: Float[Array, "... M h"]


class Imagination(NamedTuple):
    """What the student makes of K patterns."""

    logits: Float[Array, "K B C"]
    embeddings: Float[Array, "K B M h"]
    invariants: Float[Array, "K B M h"]
    imagined: Float[Array, "K B M h"]
    latents: Float[Array, "K B z"]


class IFMMIN:
    """The student's networks and what is computed with them; the teacher's for its tensors."""

    def __init__(self, config, spec: CorpusSpec):
        self.spec = spec
        self.encoders = ModalityEncoders(spec, config.model, config.quirks)
        self.shared = SharedEncoder()
        self.cascade = InvariantCascade(tuple(config.model.cascade), config.model.blocks)
        self.classifier = FcClassifier(tuple(config.model.classifier), spec.n_outputs)
        self.invariant_input = config.model.invariant_input
        self.init_from_teacher = config.stages.ifmmin.init_from_teacher
        self.size = config.model.embedding
        self.width = len(spec.modalities) * self.size
        self.latent_width = config.model.blocks * config.model.cascade[-1]

    def init(self, key: Array, earlier: dict[str, Params]) -> Params:
        keys = jax.random.split(key, 4)
        params = self.encoders.init(keys[0]) | {
            "shared": self.shared.init(keys[1], jnp.zeros((1, self.size)))["params"]
        }
        if self.init_from_teacher:
            params = {name: earlier["utt_shared"][name] for name in params}
        zeros, latents = jnp.zeros((1, self.width)), jnp.zeros((1, self.latent_width))
        return params | {
            "cascade": self.cascade.init(keys[2], zeros, zeros)["params"],
            "classifier": self.classifier.init(keys[3], latents)["params"],
        }

    # ---- the frozen teacher, asked once ----

    def prepare(self, earlier: dict[str, Params], batch: Batch) -> dict[str, Array]:
        teacher = earlier["utt_shared"]
        embeddings, absent = self.encoders(teacher, batch)
        full = choose(batch.present, embeddings, absent)
        return {
            "teacher_embeddings": embeddings,
            "teacher_invariants": self._invariant(teacher, full),
        }

    def constants(self, earlier: dict[str, Params]) -> dict[str, Array]:
        return teacher_constants(self.encoders, earlier["utt_shared"])

    # ---- the student ----

    def encode(self, params: Params, batch: Batch, dropout=None, key=None) -> Encoded:
        present, absent = self.encoders(params, batch, dropout, key)
        return Encoded(
            present, absent, self._invariant(params, present), self._invariant(params, absent)
        )

    def imagine(
        self,
        params: Params,
        encoded: Encoded,
        available: Bool[Array, "K B M"],
        dropout=None,
        key=None,
    ) -> Imagination:
        """All patterns: the cheap part. They are further rows of the same matrix products."""
        embeddings = choose(available, encoded.present, encoded.absent)
        invariants = choose(available, encoded.present_invariant, encoded.absent_invariant)
        into_blocks = flatten(invariants if self.invariant_input else jnp.zeros_like(invariants))
        with jax.named_scope("cascade"):
            imagined, latents = self.cascade.apply(
                {"params": params["cascade"]}, flatten(embeddings), into_blocks
            )
        rngs = {} if key is None else {"dropout": key}
        classifier = {"params": params["classifier"]}
        logits = self.classifier.apply(classifier, latents, dropout, rngs=rngs)
        imagined = imagined.reshape(embeddings.shape)
        return Imagination(logits, embeddings, invariants, imagined, latents)

    def loss(self, params, batch: Batch, key, hyper):
        encoder_key, classifier_key = jax.random.split(key)
        encoded = self.encode(params, batch, hyper["encoder_dropout"], encoder_key)
        out = self.imagine(params, encoded, batch.available, hyper["dropout"], classifier_key)
        terms = task_terms(self.spec, out.logits, batch.labels, batch.pattern_weights) | {
            "imagination": slot_error(out.imagined, teacher_target(batch), batch),
            "invariance": slot_error(
                out.invariants, batch.frozen["teacher_invariants"][None], batch
            ),
        }
        total = (
            terms["task"]
            + hyper["imagination_weight"] * terms["imagination"]
            + hyper["invariance_weight"] * terms["invariance"]
        )
        return total, terms

    def predict(self, params, batch: Batch):
        encoded = self.encode(params, batch)
        return self.imagine(params, encoded, batch.available).logits

    def imagined(self, params: Params, batch: Batch):
        out = self.imagine(params, self.encode(params, batch), batch.available)
        return out.imagined, teacher_target(batch)

    def invariants(self, params: Params, batch: Batch) -> Float[Array, "B M h"]:
        """Of every modality that is present (the paper's picture)."""
        return self.encode(params, batch).present_invariant

    def _invariant(self, params: Params, embeddings):
        return self.shared.apply({"params": params["shared"]}, embeddings)


def stages(config, spec: CorpusSpec) -> tuple[Stage, ...]:
    model, settings = IFMMIN(config, spec), config.stages.ifmmin
    student = Stage(
        name="ifmmin",
        settings=settings,
        patterns="missing",
        init=model.init,
        loss=model.loss,
        predict=model.predict,
        prepare=model.prepare,
        constants=model.constants,
        imagine=model.imagined,
        invariants=model.invariants,
    )
    return *utt_shared.stages(config, spec), student

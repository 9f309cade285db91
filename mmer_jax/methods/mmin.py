"""MMIN: the missing modality imagination network.

Zhao, Li, Jin: "Missing modality imagination network for emotion recognition with uncertain
missing modalities", ACL 2021. METHODS §2.

Stage 1 trains utt_fusion on full modality. Stage 2 starts from its encoders and trains on missing
patterns: a cascade imagines the embeddings of what is missing (forward imagination, eq. 2-3), a
second one leads from these back to what was there (backward imagination, eq. 4), and the
classifier reads the forward cascade's latents.

    L = L_cls + λ_imag · ||imagined - target||² + λ_cycle · ||back - sg(embeddings)||²

Variants: model.backward_cascade = "own" | "shared" (the forward one's weights) | "none".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmer_jax.data.corpus import CorpusSpec
from mmer_jax.losses import mean_over_patterns, task_terms
from mmer_jax.methods import utt_fusion
from mmer_jax.methods.encoding import ModalityEncoders, choose, flatten
from mmer_jax.methods.imagination import slot_error, teacher_constants, teacher_target
from mmer_jax.methods.stage import Batch, Params, Stage
from mmer_jax.nn.cascade import ResidualCascade
from mmer_jax.nn.heads import FcClassifier

BACKWARD = {"own": "backward_cascade", "shared": "cascade", "none": None}  # whose weights


class Imagination(NamedTuple):
    """What the student makes of K patterns."""

    logits: Float[Array, "K B C"]
    embeddings: Float[Array, "K B M h"]
    imagined: Float[Array, "K B M h"]
    latents: Float[Array, "K B z"]


class MMIN:
    """The student's networks and what is computed with them; the teacher's for its tensors."""

    def __init__(self, config, spec: CorpusSpec):
        self.spec = spec
        self.encoders = ModalityEncoders(spec, config.model, config.quirks)
        blocks = config.model.blocks
        # As released, every block multiplies the variance by five, and the cycle starts at 10^6.
        gain = None if config.quirks.cascade_init == "kaiming" else 1 / blocks
        self.cascade = ResidualCascade(tuple(config.model.cascade), blocks, gain)
        self.classifier = FcClassifier(tuple(config.model.classifier), spec.n_outputs)
        self.backward = BACKWARD[config.model.backward_cascade]
        self.init_from_teacher = config.stages.mmin.init_from_teacher
        self.width = len(spec.modalities) * config.model.embedding
        self.latent_width = config.model.blocks * config.model.cascade[-1]

    def init(self, key: Array, earlier: dict[str, Params]) -> Params:
        keys = jax.random.split(key, 4)
        params = self.encoders.init(keys[0])
        if self.init_from_teacher:
            params = {name: earlier["utt_fusion"][name] for name in params}
        zeros, latents = jnp.zeros((1, self.width)), jnp.zeros((1, self.latent_width))
        params |= {
            "cascade": self.cascade.init(keys[1], zeros)["params"],
            "classifier": self.classifier.init(keys[2], latents)["params"],
        }
        if self.backward == "backward_cascade":
            params["backward_cascade"] = self.cascade.init(keys[3], zeros)["params"]
        return params

    # ---- the frozen teacher, asked once ----

    def prepare(self, earlier: dict[str, Params], batch: Batch) -> dict[str, Array]:
        embeddings, _ = self.encoders(earlier["utt_fusion"], batch)
        return {"teacher_embeddings": embeddings}

    def constants(self, earlier: dict[str, Params]) -> dict[str, Array]:
        return teacher_constants(self.encoders, earlier["utt_fusion"])

    # ---- the student ----

    def imagine(
        self,
        params: Params,
        encoded: tuple[Float[Array, "B M h"], Float[Array, "... M h"]],
        available: Bool[Array, "K B M"],
        dropout=None,
        key=None,
    ) -> Imagination:
        """All patterns, from the (present, absent) embeddings of `ModalityEncoders`."""
        embeddings = choose(available, *encoded)
        with jax.named_scope("cascade"):
            imagined, latents = self.cascade.apply(
                {"params": params["cascade"]}, flatten(embeddings)
            )
        rngs = {} if key is None else {"dropout": key}
        classifier = {"params": params["classifier"]}
        logits = self.classifier.apply(classifier, latents, dropout, rngs=rngs)
        return Imagination(logits, embeddings, imagined.reshape(embeddings.shape), latents)

    def back(self, params: Params, imagined: Float[Array, "K B M h"]) -> Float[Array, "K B M h"]:
        """The backward cascade: from what was imagined to what was there."""
        with jax.named_scope("backward_cascade"):
            weights = {"params": params[str(self.backward)]}
            back, _ = self.cascade.apply(weights, flatten(imagined))
        return back.reshape(imagined.shape)

    def loss(self, params, batch: Batch, key, hyper):
        encoder_key, classifier_key = jax.random.split(key)
        encoded = self.encoders(params, batch, hyper["encoder_dropout"], encoder_key)
        out = self.imagine(params, encoded, batch.available, hyper["dropout"], classifier_key)
        terms = task_terms(self.spec, out.logits, batch.labels, batch.pattern_weights) | {
            "imagination": slot_error(out.imagined, teacher_target(batch), batch),
        }
        total = terms["task"] + hyper["imagination_weight"] * terms["imagination"]
        if self.backward:
            error = (self.back(params, out.imagined) - jax.lax.stop_gradient(out.embeddings)) ** 2
            terms["cycle"] = mean_over_patterns(error.mean(axis=(-2, -1)), batch.pattern_weights)
            total += hyper["cycle_weight"] * terms["cycle"]
        return total, terms

    def predict(self, params, batch: Batch):
        return self.imagine(params, self.encoders(params, batch), batch.available).logits

    def imagined(self, params: Params, batch: Batch):
        out = self.imagine(params, self.encoders(params, batch), batch.available)
        return out.imagined, teacher_target(batch)


def stages(config, spec: CorpusSpec) -> tuple[Stage, ...]:
    model, settings = MMIN(config, spec), config.stages.mmin
    student = Stage(
        name="mmin",
        settings=settings,
        patterns="missing",
        init=model.init,
        loss=model.loss,
        predict=model.predict,
        prepare=model.prepare,
        constants=model.constants,
        imagine=model.imagined,
    )
    return *utt_fusion.stages(config, spec), student

"""NMER: noise-robust emotion recognition from noisy modalities.

Fan, Zuo, Liu, Li et al., MRAC@ACM MM 2024. METHODS §4.

The modalities that a pattern names are not absent but noisy (train.noise, protocol `noise`). Each
modality has two encoders: a specific one and an invariant one, the latter followed by a
SharedEncoder. Stage 1 (nmer_teacher) trains them on clean full modality, the invariant features
pulled together by CMD. In stage 2 a conditional VAE leads from the specific embeddings of the
noisy input, given its invariant features, to the teacher's clean specific embeddings; the
classifier reads the reconstruction.

    L = L_cls + λ_inv · ||c - ĉ||² + λ_rec · ||x̂ - x_clean||² + λ_KL · KL(q(z|x,c) || N(0,1))

Sound behaviour is the default; quirks.attention, quirks.kl and quirks.latent bring back what was
released.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmer_jax.data.corpus import CorpusSpec
from mmer_jax.losses import (
    cmd_of_pairs,
    kl_to_normal,
    mean_over_patterns,
    task_terms,
)
from mmer_jax.methods.encoding import ModalityEncoders, choose, flatten
from mmer_jax.methods.imagination import slot_error
from mmer_jax.methods.stage import Batch, Params, Stage
from mmer_jax.nn.heads import FcClassifier, SharedEncoder
from mmer_jax.nn.vae import ConditionalVAE


class Encoders:
    """Specific and invariant encoders of every modality."""

    def __init__(self, config, spec: CorpusSpec):
        self.specific = ModalityEncoders(spec, config.model, config.quirks, "specific")
        self.invariant = ModalityEncoders(spec, config.model, config.quirks, "invariant")
        self.shared = SharedEncoder()
        self.size = config.model.embedding

    def init(self, key: Array) -> Params:
        keys = jax.random.split(key, 3)
        shared = self.shared.init(keys[2], jnp.zeros((1, self.size)))["params"]
        return self.specific.init(keys[0]) | self.invariant.init(keys[1]) | {"shared": shared}

    def __call__(
        self, params: Params, batch: Batch, dropout=None, key=None
    ) -> tuple[Float[Array, "K B M h"], Float[Array, "K B M h"]]:
        """(specific embeddings, invariant features) under the batch's patterns."""
        keys = (None, None) if key is None else jax.random.split(key)
        specific = self.specific(params, batch, dropout, keys[0])
        invariant = self.invariant(params, batch, dropout, keys[1])
        shared = (self.share(params, embeddings) for embeddings in invariant)
        return choose(batch.available, *specific), choose(batch.available, *shared)

    def clean(self, params: Params, batch: Batch) -> tuple[Array, Array]:
        """[B, M, h] each, of what is present."""
        specific, _ = self.specific(params, batch)
        invariant, _ = self.invariant(params, batch)
        return specific, self.share(params, invariant)

    def share(self, params: Params, embeddings):
        return self.shared.apply({"params": params["shared"]}, embeddings)


class Teacher:
    """Stage 1: both encoders and a classifier on [specific ; invariant], full modality."""

    def __init__(self, config, spec: CorpusSpec):
        self.spec = spec
        self.encoders = Encoders(config, spec)
        self.classifier = FcClassifier(tuple(config.model.classifier), spec.n_outputs)
        self.width = 2 * len(spec.modalities) * config.model.embedding

    def init(self, key, earlier):
        del earlier
        encoder_key, classifier_key = jax.random.split(key)
        classifier = self.classifier.init(classifier_key, jnp.zeros((1, self.width)))["params"]
        return self.encoders.init(encoder_key) | {"classifier": classifier}

    def classify(self, params, specific, invariant, dropout=None, key=None):
        rngs = {} if key is None else {"dropout": key}
        both = jnp.concatenate([flatten(specific), flatten(invariant)], axis=-1)
        return self.classifier.apply({"params": params["classifier"]}, both, dropout, rngs=rngs)

    def loss(self, params, batch: Batch, key, hyper):
        encoder_key, classifier_key = jax.random.split(key)
        specific, invariant = self.encoders(params, batch, hyper["encoder_dropout"], encoder_key)
        logits = self.classify(params, specific, invariant, hyper["dropout"], classifier_key)
        terms = task_terms(self.spec, logits, batch.labels, batch.weights[None])
        rows = jnp.where(batch.available[0], batch.weights[:, None], 0.0)
        discrepancy = cmd_of_pairs(invariant[0], rows)
        terms |= {"cmd": discrepancy}
        return terms["task"] + hyper["cmd_weight"] * discrepancy, terms

    def predict(self, params, batch: Batch):
        return self.classify(params, *self.encoders(params, batch))


class Denoised(NamedTuple):
    """What the VAE makes of K patterns."""

    reconstruction: Float[Array, "K B M h"]
    invariants: Float[Array, "K B M h"]
    mean: Float[Array, "K B z"]
    log_variance: Float[Array, "K B z"]


class NMER:
    """Stage 2."""

    def __init__(self, config, spec: CorpusSpec):
        self.spec = spec
        self.encoders = Encoders(config, spec)
        self.vae = ConditionalVAE(**config.model.vae, attention=config.quirks.attention)
        self.classifier = FcClassifier(
            tuple(config.model.classifier), spec.n_outputs, batch_norm=True
        )
        self.kl_sum = config.quirks.kl == "sum"
        self.sample_always = config.quirks.latent == "sample"
        self.shape = (1, len(spec.modalities), config.model.embedding)

    def init(self, key, earlier):
        vae_key, classifier_key = jax.random.split(key)
        zeros = jnp.zeros(self.shape)
        vae = self.vae.init(vae_key, zeros, zeros, jnp.ones(1, bool))
        classifier = self.classifier.init(classifier_key, flatten(zeros))
        encoders = {n: p for n, p in earlier["nmer_teacher"].items() if n != "classifier"}
        return encoders | {
            "vae": vae["params"],
            "classifier": classifier["params"],
            "statistics": classifier["statistics"],
        }

    def prepare(self, earlier, batch: Batch) -> dict[str, Array]:
        specific, invariant = self.encoders.clean(earlier["nmer_teacher"], batch)
        return {"teacher_specific": specific, "teacher_invariants": invariant}

    def denoise(
        self, params: Params, batch: Batch, hyper=None, keys=(None, None, None)
    ) -> Denoised:
        """`keys`: for the encoders' dropout, the VAE's dropout and the latent; None: none."""
        dropout = encoder_dropout = None
        if hyper is not None:
            dropout, encoder_dropout = hyper["dropout"], hyper["encoder_dropout"]
        specific, invariant = self.encoders(params, batch, encoder_dropout, keys[0])
        streams = zip(("dropout", "latent"), keys[1:], strict=True)
        rngs = {name: key for name, key in streams if key is not None}
        with jax.named_scope("vae"):
            out: Any = self.vae.apply(
                {"params": params["vae"]},
                specific,
                invariant,
                batch.pattern_weights > 0,
                dropout,
                sample=keys[2] is not None,
                rngs=rngs,
            )
        reconstruction, mean, log_variance = out
        return Denoised(reconstruction, invariant, mean, log_variance)

    def loss(self, params, batch: Batch, key, hyper):
        keys = jax.random.split(key, 4)
        out = self.denoise(params, batch, hyper, tuple(keys[:3]))
        logits, updated = self.classifier.apply(
            {"params": params["classifier"], "statistics": params["statistics"]},
            flatten(out.reconstruction),
            hyper["dropout"],
            batch.pattern_weights,
            rngs={"dropout": keys[3]},
            mutable=["statistics"],
        )
        kl = kl_to_normal(out.mean, out.log_variance)
        weights = batch.pattern_weights
        frozen = {name: tensor[None] for name, tensor in batch.frozen.items()}
        terms = task_terms(self.spec, logits, batch.labels, weights) | {
            "invariance": slot_error(out.invariants, frozen["teacher_invariants"], batch),
            "reconstruction": slot_error(out.reconstruction, frozen["teacher_specific"], batch),
            "kl": jnp.sum(kl * weights) if self.kl_sum else mean_over_patterns(kl, weights),
        }
        total = terms["task"] + sum(
            hyper[f"{name}_weight"] * terms[name] for name in ("invariance", "reconstruction", "kl")
        )
        return total, terms | {"statistics": updated["statistics"]}

    def predict(self, params, batch: Batch):
        latent_key = jax.random.key(0) if self.sample_always else None
        out = self.denoise(params, batch, keys=(None, None, latent_key))
        variables = {"params": params["classifier"], "statistics": params["statistics"]}
        return self.classifier.apply(variables, flatten(out.reconstruction))


def stages(config, spec: CorpusSpec) -> tuple[Stage, ...]:
    teacher, model = Teacher(config, spec), NMER(config, spec)
    return (
        Stage(
            name="nmer_teacher",
            settings=config.stages.nmer_teacher,
            patterns="full",
            init=teacher.init,
            loss=teacher.loss,
            predict=teacher.predict,
        ),
        Stage(
            name="nmer",
            settings=config.stages.nmer,
            patterns="missing",
            init=model.init,
            loss=model.loss,
            predict=model.predict,
            prepare=model.prepare,
            invariants=lambda params, batch: model.encoders.clean(params, batch)[1],
        ),
    )

"""HARDY-MER: hardness-aware dynamic curriculum learning over dialogues.

Liu et al., "Hardness-aware dynamic curriculum learning for robust multimodal emotion recognition
with missing modalities", ACM MM 2025. METHODS §6. Three stages:

1. hardy_unimodal, full modality: for each modality an encoder and a classifier of its own.

       L = Σ_m L_cls(m) - λ_I · (mean over pairs of I(x; y))

2. hardy_teacher, missing patterns: starts from 1, learns to reconstruct what is missing, and is
   then frozen. It says how hard every training utterance is under every pattern (hardness.py).

       L = L_cls + λ_rec · ||reconstructed - true||² over the missing modalities

3. hardy, missing patterns: the student starts from 1 as well and minimises the same loss, on each
   dialogue and on K copies of it, the mean over these K + 1. In copy i each training utterance is
   replaced by the i-th row of its curriculum (curriculum.py): a neighbour, with the features and
   label it has, or once more the utterance itself where it is too easy for K neighbours. Turns that
   are context alone stay.

The release trains a model per pattern and takes a step for each copy in turn; here all patterns and
copies are in one step of one model. Neighbours are searched among the fold's training utterances,
and hardness is scaled over these instead of over a batch: an utterance has one hardness.

Ablations (`model.curriculum`): k=0, no curriculum; hardness="off", K neighbours for all, "direct"
or "indirect"; retrieval="random", or "features" (the encodings of stage 1 are the default).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmer_jax.data.corpus import CorpusSpec
from mmer_jax.errors import UserError, shorten
from mmer_jax.losses import mean_over_patterns, task_loss, weighted_mean
from mmer_jax.methods.hardness import reconstruction_error
from mmer_jax.methods.hardy_curriculum import Copies, Curriculum
from mmer_jax.methods.hardy_networks import HardyNetworks, Turns
from mmer_jax.methods.stage import Batch, Params, Stage


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
        logits = self.networks.classify_each(params, encoded)[:, 0]  # [U, L, M, C]
        labels = batch.labels[:, 0].reshape(turns.features.shape[:2])[..., None]
        losses = _task_losses(logits, jnp.broadcast_to(labels, logits.shape[:3]))
        weights = batch.weights.reshape(turns.features.shape[:2])
        slots = jnp.where(turns.available[:, 0], weights[..., None], 0.0)
        found = self.networks.informations(params, encoded, turns.keys, turns.segments)[:, 0].mean(
            axis=-1
        )
        terms = {
            "task": jnp.sum(jax.vmap(weighted_mean, in_axes=-1)(losses, slots)),
            "information": weighted_mean(found, weights),
        }
        return terms["task"] - hyper["information_weight"] * terms["information"], terms

    def predict(self, params: Params, batch: Batch):
        """The classifiers of the modalities that are there, averaged."""
        turns = Turns.of(batch)
        logits = self.networks.classify_each(params, self.networks.encode(params, turns))
        share = turns.available / jnp.maximum(turns.available.sum(axis=-1, keepdims=True), 1)
        return _of_utterances(jnp.sum(logits * share[..., None], axis=-2))


class Masked:
    """What teacher and student share: classification and reconstruction under patterns."""

    def __init__(self, networks: HardyNetworks, *, experts: bool = False):
        self.networks, self.experts = networks, experts

    def init(self, key: Array, earlier: dict[str, Params]) -> Params:
        kept = ("encoder_", "cross_") if self.experts else ("encoder_",)
        first = earlier["hardy_unimodal"].items()
        return {n: p for n, p in first if n.startswith(kept)} | self.networks.init_joint(key)

    def loss(self, params: Params, batch: Batch, key, hyper):
        terms = self.of_dialogues(params, batch, Turns.of(batch), key, hyper)
        return terms["task"] + hyper["reconstruction_weight"] * terms["reconstruction"], terms

    def of_dialogues(self, params: Params, batch: Batch, turns: Turns, key, hyper):
        """Unweighted loss terms of the dialogues as they are."""
        encoder_key, joint_key = jax.random.split(key)
        encoded = self.encode(params, turns, hyper["dropout"], encoder_key)
        as_one_copy = Copies(
            features=turns.features[:, None, None],
            present=turns.present[:, None, None],
            available=turns.available[:, :, None],
            labels=batch.labels[:, 0].reshape(batch.turns.shape)[:, None, None],
        )
        return self.terms(params, encoded[:, :, None], as_one_copy, batch, joint_key, hyper)

    def encode(self, params: Params, turns: Turns, dropout=None, key=None):
        encoded = self.networks.encode(params, turns, dropout, key, experts=self.experts)
        return jnp.where(turns.keys[..., None], encoded, 0.0)

    def terms(self, params: Params, encoded, copies: Copies, batch: Batch, key, hyper):
        """Mean over patterns and copies of both losses; `encoded` is [U, K, C, L, M, h]."""
        logits, reconstructed = self.networks.joint(params, encoded, hyper["dropout"], key)
        shape = logits.shape[:-1]
        task = _task_losses(logits, jnp.broadcast_to(copies.labels, shape))
        missing = copies.present & ~copies.available
        features = jnp.broadcast_to(copies.features, reconstructed.shape)
        error = reconstruction_error(reconstructed, features, missing, dims=self.networks.dims)
        weights = batch.weights.reshape(batch.turns.shape)[:, None, None]
        weights = jnp.where(copies.available.any(axis=-1), weights, 0.0)
        task, error, weights = (
            jnp.transpose(x, (1, 2, 0, 3)).reshape(shape[1] * shape[2], -1)
            for x in (task, error, weights)
        )
        return {
            "task": mean_over_patterns(task, weights),
            "reconstruction": mean_over_patterns(error, weights),
        }

    def predict(self, params: Params, batch: Batch):
        logits, _ = self.networks.joint(params, self.encode(params, Turns.of(batch)))
        return _of_utterances(logits)


class Student(Masked):
    """Stage 3: the dialogues and their copies."""

    def __init__(self, networks: HardyNetworks, curriculum: Curriculum):
        super().__init__(networks)
        self.curriculum = curriculum

    def loss(self, params: Params, batch: Batch, key, hyper):
        turns, keys = Turns.of(batch), jax.random.split(key, 3)
        terms = self.of_dialogues(params, batch, turns, keys[0], hyper)
        copies = self.curriculum.copies(batch, turns)
        encoded = self.networks.encode_available(
            params,
            *(copies.features, copies.available, turns.patterns, turns.segments),
            *(hyper["dropout"], keys[1]),
        )
        of_copies = self.terms(params, encoded, copies, batch, keys[2], hyper)
        k = self.curriculum.settings.k
        terms = {name: (own + k * of_copies[name]) / (k + 1) for name, own in terms.items()}
        return terms["task"] + hyper["reconstruction_weight"] * terms["reconstruction"], terms


def _task_losses(logits: Float[Array, "... C"], labels) -> Float[Array, "..."]:
    """`task_loss` for any leading axes."""
    flat = task_loss(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))
    return flat.reshape(labels.shape)


def _of_utterances(x: Float[Array, "U K L C"]) -> Float[Array, "K B C"]:
    return jnp.moveaxis(x, 1, 0).reshape(x.shape[1], -1, x.shape[-1])


def stages(config, spec: CorpusSpec) -> tuple[Stage, ...]:
    _check(config, spec)
    networks, settings = HardyNetworks(config.model, spec), config.model.curriculum
    unimodal = Unimodal(networks)
    teacher = Masked(networks, experts=True)
    first = Stage(
        name="hardy_unimodal",
        settings=config.stages.hardy_unimodal,
        patterns="full",
        unit="dialogue",
        init=unimodal.init,
        loss=unimodal.loss,
        predict=unimodal.predict,
    )
    second = Stage(
        name="hardy_teacher",
        settings=config.stages.hardy_teacher,
        patterns="missing",
        unit="dialogue",
        init=teacher.init,
        loss=teacher.loss,
        predict=teacher.predict,
    )
    last = {"name": "hardy", "settings": config.stages.hardy, "patterns": "missing"}
    if not settings.k:
        plain = Masked(networks)
        return first, Stage(
            **last, unit="dialogue", init=plain.init, loss=plain.loss, predict=plain.predict
        )
    by_query = config.quirks.curriculum_labels == "query"
    curriculum = Curriculum(settings, networks, query_labels=by_query)
    student = Student(networks, curriculum)
    third = Stage(
        **last,
        unit="dialogue",
        init=student.init,
        loss=student.loss,
        predict=student.predict,
        prepare=curriculum.prepare,
        survey=curriculum.survey,
        study=curriculum.study,
    )
    return (first, third) if settings.hardness == "off" else (first, second, third)


def _check(config, spec: CorpusSpec) -> None:
    if len(spec.tasks) > 1:
        names = ", ".join(task.name for task in spec.tasks)
        raise UserError(f"method 'hardy' trains one task; data.labels names {names}")
    sequences = [m.name for m in spec.modalities if m.is_sequence]
    if sequences:
        raise UserError(
            f"method 'hardy' reads one vector per utterance; {shorten(sequences)} holds sequences. "
            "Choose other features with --config.data.modalities, such as sentence vectors"
        )
    if config.model.embedding % config.model.heads:
        raise UserError(
            f"model.heads={config.model.heads} must divide model.embedding={config.model.embedding}"
        )
    if config.train.noise != "none" and config.model.curriculum.k:
        raise UserError(
            f"train.noise={config.train.noise} and a curriculum do not go together: neighbours are "
            "not noised; pass --config.model.curriculum.k=0"
        )

"""EI²: emotion and intent together, with the turns before.

Liu, Zuo, Lian et al.: "Emotion and Intent Joint Understanding in Multimodal Conversation: A
Benchmarking Dataset", 2024 (MC-EIU). METHODS §7.

Each task has its own encoders and a transformer layer over the modalities' embeddings. The context
of the dialogue so far is added to these tokens. Then each task's tokens look at the other's, and a
classifier reads them. Stage 1 (ei2_pretrain) trains encoders and transformers on full modality,
without context and interaction; stage 2 starts from them.

    L = Σ_tasks CE (+ λ_imag · ||imagined - target||² + λ_inv · ||invariant - ĥ||²)

Under missing modalities every modality has two embeddings and two contexts, with the utterance's
own features and without, and a pattern chooses among them. With `model.imagination` a cascade
imagines the embeddings of what is missing (ei2_imagination.py).

Ablations: model.history=0, model.interaction=False, model.gate=False, model.second_attention=False,
stages.ei2.init_from_pretrained=False, a single label column.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mmer_jax.data.corpus import CorpusSpec
from mmer_jax.errors import UserError
from mmer_jax.losses import cmd_of_pairs
from mmer_jax.methods.ei2_context import DialogueContext, last_of_units, of_all_rows
from mmer_jax.methods.ei2_tasks import NO_DROPOUT, Understanding, apply, split
from mmer_jax.methods.encoding import choose
from mmer_jax.methods.stage import Batch, Params, Stage
from mmer_jax.nn.interaction import Interaction


class Pretraining(Understanding):
    """Stage 1."""

    def init(self, key: Array, earlier: dict[str, Params]) -> Params:
        del earlier
        read = jnp.concatenate([self.zeros] * (2 if self.imaginations else 1), axis=1)
        return self.init_networks(key, read)

    def outputs(self, params: Params, batch: Batch, hyper, key=None):
        """(logits, of each task that imagines the invariant features [K, B, M, h])."""
        keys = split(key, 3)
        encoded = self.encode(params, batch, hyper, keys[0])
        embeddings = [choose(batch.available, *pair) for pair in encoded]
        read = self.fuse(params, embeddings, hyper, keys[1])
        invariants = []
        for i, imagination in enumerate(self.imaginations):
            invariants.append(imagination.invariant(params, embeddings[i]))
            read[i] = jnp.concatenate([read[i], invariants[i]], axis=-2)
        return self.classify(params, read, hyper, keys[2]), invariants

    def loss(self, params: Params, batch: Batch, key, hyper):
        outputs, invariants = self.outputs(params, batch, hyper, key)
        terms = self.task_terms(outputs, batch)
        total = terms["task"]
        if invariants:
            rows = jnp.where(batch.available[0], batch.weights[:, None], 0.0)
            terms["cmd"] = jnp.stack([cmd_of_pairs(x[0], rows) for x in invariants]).sum()
            total += hyper["cmd_weight"] * terms["cmd"]
        return total, terms

    def predict(self, params: Params, batch: Batch):
        return self.outputs(params, batch, NO_DROPOUT)[0]


class EI2(Understanding):
    """Stage 2: context and interaction as well."""

    def __init__(self, config, spec: CorpusSpec, settings):
        super().__init__(config, spec, settings)
        model = config.model
        self.init_from_pretrained = settings.init_from_pretrained
        self.context = DialogueContext(config, spec) if model.history else None
        self.interaction = None
        if model.interaction and len(self.names) == 2:
            self.interaction = Interaction(
                model.interaction_heads, second=model.second_attention, gate=model.gate
            )

    def init(self, key: Array, earlier: dict[str, Params]) -> Params:
        keys = jax.random.split(key, 4)
        params = self.init_networks(keys[0], self.zeros)
        if self.init_from_pretrained:
            first = earlier["ei2_pretrain"].items()
            params |= {n: network for n, network in first if not n.endswith("_classifier")}
        if self.context:
            params["context"] = self.context.init(keys[1])
        for i, name in enumerate(self.names):
            if self.interaction:
                network = self.interaction.init(self.keys(keys[2])[i], self.zeros, self.zeros)
                params[f"{name}_interaction"] = network["params"]
            if self.imaginations:
                params |= self.imaginations[i].init_cascade(self.keys(keys[3])[i])
        return params

    def outputs(self, params: Params, batch: Batch, hyper, key=None):
        """(logits of the units' utterances, of each task that imagines what it imagines)."""
        own, keys = last_of_units(batch), split(key, 4)
        encoded = self.encode(params, own, hyper, keys[0])
        embeddings = [choose(own.available, *pair) for pair in encoded]
        imagined = []
        for i, imagination in enumerate(self.imaginations):
            found = imagination.imagine(params, own, *encoded[i])
            embeddings[i] = jnp.where(own.available[..., None], embeddings[i], found.embeddings)
            imagined.append(found)
        tokens = self.fuse(params, embeddings, hyper, keys[1])
        if self.context:
            rate = hyper["context_dropout"]
            context = self.context(params["context"], batch, rate, keys[2])
            tokens = [mine + context for mine in tokens]
        if self.interaction:
            tokens = [
                apply(self.interaction, params[f"{name}_interaction"], None, mine, other)
                for name, mine, other in zip(self.names, tokens, tokens[::-1], strict=True)
            ]
        return self.classify(params, tokens, hyper, keys[3]), imagined

    def loss(self, params: Params, batch: Batch, key, hyper):
        outputs, imagined = self.outputs(params, batch, hyper, key)
        own = last_of_units(batch)
        terms = self.task_terms(outputs, own)
        total = terms["task"]
        for imagination, found in zip(self.imaginations, imagined, strict=True):
            for name, error in imagination.errors(found, own).items():
                terms[name] = terms.get(name, 0.0) + error
                total += hyper[f"{name}_weight"] * error
        return total, terms

    def predict(self, params: Params, batch: Batch):
        outputs, _ = self.outputs(params, batch, NO_DROPOUT)
        return of_all_rows(outputs, batch.turns.shape[1])

    # ---- with imagination ----

    def prepare(self, earlier: dict[str, Params], batch: Batch) -> dict[str, Array]:
        teacher = earlier["ei2_pretrain"]
        return {k: v for mine in self.imaginations for k, v in mine.prepare(teacher, batch).items()}

    def constants(self, earlier: dict[str, Params]) -> dict[str, Array]:
        teacher = earlier["ei2_pretrain"]
        return {k: v for mine in self.imaginations for k, v in mine.constants(teacher).items()}

    def imagined(self, params: Params, batch: Batch):
        """What is imagined and the first stage's answer, the tasks' side by side."""
        own, length = last_of_units(batch), batch.turns.shape[1]
        _, imagined = self.outputs(params, batch, NO_DROPOUT)
        found = jnp.concatenate([mine.embeddings for mine in imagined], axis=-1)
        target = jnp.concatenate([mine.target(own) for mine in self.imaginations], axis=-1)
        return of_all_rows(found, length), of_all_rows(target, length)


def stages(config, spec: CorpusSpec) -> tuple[Stage, ...]:
    names = ", ".join(task.name for task in spec.tasks)
    if len(spec.tasks) > 2 or not spec.is_classification:
        raise UserError(f"ei2 understands one or two tasks with classes; data.labels names {names}")
    settings = config.stages.ei2
    for key in ("fusion_heads", "interaction_heads"):
        if config.model.embedding % config.model[key]:
            raise UserError(
                f"model.{key}={config.model[key]} must divide model.embedding="
                f"{config.model.embedding}"
            )
    if config.model.imagination and not settings.init_from_pretrained:
        raise UserError(
            "model.imagination=True needs the first stage, which says what is to be imagined; "
            "leave stages.ei2.init_from_pretrained=True"
        )
    first = Pretraining(config, spec, config.stages.ei2_pretrain)
    model = EI2(config, spec, settings)
    more = {}
    if config.model.imagination:
        more = {"prepare": model.prepare, "constants": model.constants, "imagine": model.imagined}
    pretraining = Stage(
        name="ei2_pretrain",
        settings=config.stages.ei2_pretrain,
        patterns="full",
        init=first.init,
        loss=first.loss,
        predict=first.predict,
    )
    last = Stage(
        name="ei2",
        settings=settings,
        patterns=settings.patterns,
        unit="history" if config.model.history else "utterance",
        history=config.model.history,
        history_missing=config.model.history_missing,
        init=model.init,
        loss=model.loss,
        predict=model.predict,
        **more,
    )
    return (pretraining, last) if settings.init_from_pretrained else (last,)

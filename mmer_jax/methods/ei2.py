"""EI²: emotion and intent together, with the turns before.

Liu, Zuo, Lian et al.: "Emotion and Intent Joint Understanding in Multimodal Conversation: A
Benchmarking Dataset", 2024 (MC-EIU). METHODS §7.

Each task has its own encoders and a transformer layer over the modalities' embeddings. The context
of the dialogue so far is added to these tokens. Then each task's tokens look at the other's, and a
classifier reads them. Stage 1 (ei2_pretrain) trains encoders and transformers on full modality,
without context and interaction; stage 2 starts from them.

    L = Σ_tasks CE

Under missing modalities every modality has two embeddings and two contexts, with the utterance's
own features and without, and a pattern chooses among them.

Ablations: model.history=0, model.interaction=False, model.gate=False, model.second_attention=False,
stages.ei2.init_from_pretrained=False, a single label column.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmer_jax.data.corpus import CorpusSpec
from mmer_jax.errors import UserError
from mmer_jax.losses import task_terms
from mmer_jax.methods.encoding import ModalityEncoders, choose, flatten
from mmer_jax.methods.stage import Batch, History, Params, Stage
from mmer_jax.nn.attention import TransformerLayer
from mmer_jax.nn.context import ContextEncoder
from mmer_jax.nn.heads import FcClassifier
from mmer_jax.nn.interaction import Interaction
from mmer_jax.nn.layers import merge_rows

DROPOUTS = ("dropout", "encoder_dropout", "fusion_dropout", "context_dropout")
NO_DROPOUT = dict.fromkeys(DROPOUTS)


class Understanding:
    """Encoders, fusion and a classifier for each task: stage 1, and what stage 2 has of it."""

    def __init__(self, config, spec: CorpusSpec, settings):
        self.spec, self.focus, model = spec, settings.focus, config.model
        self.names = tuple(f"task{i}" for i in range(len(spec.tasks)))
        self.encoders = {
            name: ModalityEncoders(spec, model, config.quirks, f"{name}_encoder")
            for name in self.names
        }
        self.fusion = TransformerLayer(model.fusion_heads, model.feedforward)
        self.classifiers = {
            name: FcClassifier(tuple(model.classifier), task.n_outputs)
            for name, task in zip(self.names, spec.tasks, strict=True)
        }
        self.tokens_shape = (1, len(spec.modalities), model.embedding)

    def init(self, key: Array, earlier: dict[str, Params]) -> Params:
        del earlier
        zeros, params = jnp.zeros(self.tokens_shape), {}
        for i, name in enumerate(self.names):
            keys = jax.random.split(jax.random.fold_in(key, i), 3)
            params |= self.encoders[name].init(keys[0])
            params[f"{name}_fusion"] = self.fusion.init(keys[1], zeros)["params"]
            classifier = self.classifiers[name].init(keys[2], flatten(zeros))
            params[f"{name}_classifier"] = classifier["params"]
        return params

    def fused(self, params: Params, batch: Batch, hyper, key) -> list[Float[Array, "K B M h"]]:
        """Of each task the modalities' embeddings under the patterns, fused."""
        tokens = []
        for i, name in enumerate(self.names):
            keys = _keys(key, i, 2)
            encoded = self.encoders[name](params, batch, hyper["encoder_dropout"], keys[0])
            rows, restore = merge_rows(choose(batch.available, *encoded), inner=2)
            with jax.named_scope("fusion"):
                args = (params[f"{name}_fusion"], keys[1], rows, None, hyper["fusion_dropout"])
                tokens.append(restore(_apply(self.fusion, *args)))
        return tokens

    def understood(self, params: Params, batch: Batch, hyper, key) -> list[Array]:
        """Of each task what its classifier reads, [K, B, M, h]."""
        return self.fused(params, batch, hyper, key)

    def outputs(self, params: Params, batch: Batch, hyper, key=None) -> Float[Array, "K B C"]:
        """Logits, the tasks' side by side."""
        keys = _keys(key, 0, 2)
        tokens = self.understood(params, batch, hyper, keys[0])
        logits = []
        for i, (name, mine) in enumerate(zip(self.names, tokens, strict=True)):
            classifier, weights = self.classifiers[name], params[f"{name}_classifier"]
            own_key = _keys(keys[1], i, 1)[0]
            logits.append(_apply(classifier, weights, own_key, flatten(mine), hyper["dropout"]))
        return jnp.concatenate(logits, axis=-1)

    def loss(self, params: Params, batch: Batch, key, hyper):
        outputs = self.outputs(params, batch, hyper, key)
        terms = task_terms(self.spec, outputs, batch.labels, batch.pattern_weights, self.focus)
        return terms["task"], terms

    def predict(self, params: Params, batch: Batch) -> Float[Array, "K B C"]:
        return self.outputs(params, batch, NO_DROPOUT)


class EI2(Understanding):
    """Stage 2: context and interaction as well."""

    def __init__(self, config, spec: CorpusSpec, settings):
        super().__init__(config, spec, settings)
        model = config.model
        self.init_from_pretrained = settings.init_from_pretrained
        self.pad_masking = config.quirks.pad_masking
        self.history_missing = model.history_missing
        self.context = self.interaction = None
        if model.history:
            self.context = ContextEncoder(model.embedding, model.context_layers, spec.n_speakers)
        if model.interaction and len(self.names) == 2:
            self.interaction = Interaction(
                model.interaction_heads, second=model.second_attention, gate=model.gate
            )

    def init(self, key: Array, earlier: dict[str, Params]) -> Params:
        keys = jax.random.split(key, 3)
        params = super().init(keys[0], earlier)
        if self.init_from_pretrained:
            params |= {
                name: network
                for name, network in earlier["ei2_pretrain"].items()
                if not name.endswith("_classifier")
            }
        if self.context:
            shapes = {m.name: (1, 1, m.max_steps or 1, m.dim) for m in self.spec.modalities}
            features = {name: jnp.zeros(shape) for name, shape in shapes.items()}
            valid = {name: jnp.ones(shape[:3], bool) for name, shape in shapes.items()}
            turns = jnp.ones((1, 1), bool)
            arguments = (features, valid, jnp.zeros((1, 1), int), turns)
            params["context"] = self.context.init(keys[1], *arguments)["params"]
        if self.interaction:
            zeros = jnp.zeros(self.tokens_shape)
            for i, name in enumerate(self.names):
                own_key = jax.random.fold_in(keys[2], i)
                network = self.interaction.init(own_key, zeros, zeros)
                params[f"{name}_interaction"] = network["params"]
        return params

    def understood(self, params: Params, batch: Batch, hyper, key) -> list[Array]:
        keys = _keys(key, 1, 3)
        tokens = self.fused(params, batch, hyper, keys[0])
        if self.context:
            contexts = self.contexts(params, batch, hyper, keys[1])
            context = choose(batch.available, *jnp.split(contexts, 2))
            tokens = [mine + context for mine in tokens]
        if self.interaction:
            tokens = [
                _apply(
                    self.interaction,
                    params[f"{name}_interaction"],
                    _keys(keys[2], i, 1)[0],
                    tokens[i],
                    tokens[1 - i],
                )
                for i, name in enumerate(self.names)
            ]
        return tokens

    def contexts(self, params: Params, batch: Batch, hyper, key) -> Float[Array, "n M h"]:
        """n = 2B: of the dialogue up to the utterance, then without the utterance's own features.

        The latter stand for what a pattern takes away, with noisy features where noise replaces
        it. The turns before stay, but for `model.history_missing`: then they lack the modality as
        well. Noise leaves them alone.
        """
        window = up_to_now(batch)
        if batch.noisy is not None:
            other = up_to_now(batch._replace(features=batch.noisy))
        elif self.history_missing:
            other = window._replace(present=jnp.zeros_like(window.present))
        else:
            other = window._replace(present=window.present.at[:, -1].set(False))
        both = jax.tree.map(lambda *x: jnp.concatenate(x), window, other)
        features, valid = {}, {}
        for i, m in enumerate(self.spec.modalities):
            there = both.present[..., i] & both.turns
            x = both.features[m.name]
            x = x if m.is_sequence else x[:, :, None]
            steps = jnp.ones((*there.shape, x.shape[2]), bool)
            if m.is_sequence and self.pad_masking:
                steps = jnp.arange(x.shape[2]) < both.lengths[m.name][..., None]
            features[m.name] = jnp.where(there[..., None, None], x, 0.0)
            valid[m.name] = steps & there[..., None] if self.pad_masking else steps
        turns = both.turns if self.pad_masking else jnp.ones_like(both.turns)
        arguments = (features, valid, both.speakers, turns, hyper["context_dropout"])
        with jax.named_scope("context"):
            return _apply(self.context, params["context"], key, *arguments)


def up_to_now(batch: Batch) -> History:
    """The turns before and the utterance itself, the last of H + 1."""
    before = batch.history
    assert before is not None

    def join(turns, own):
        return jnp.concatenate([turns, own[:, None]], axis=1)

    return History(
        features=jax.tree.map(join, before.features, batch.features),
        lengths=jax.tree.map(join, before.lengths, batch.lengths),
        present=join(before.present, batch.present),
        turns=join(before.turns, jnp.ones_like(batch.weights, bool)),
        speakers=before.speakers,
    )


def _keys(key: Array | None, number: int, count: int):
    """`count` keys of part `number`; None each where there is no dropout."""
    return (
        [None] * count if key is None else jax.random.split(jax.random.fold_in(key, number), count)
    )


def _apply(network, weights, key: Array | None, *arguments):
    rngs = {} if key is None else {"dropout": key}
    return network.apply({"params": weights}, *arguments, rngs=rngs)


def stages(config, spec: CorpusSpec) -> tuple[Stage, ...]:
    if len(spec.tasks) > 2 or not spec.is_classification:
        raise UserError(
            f"ei2 understands one or two tasks with classes; data.labels names "
            f"{', '.join(task.name for task in spec.tasks)}"
        )
    first = Understanding(config, spec, config.stages.ei2_pretrain)
    model, settings = EI2(config, spec, config.stages.ei2), config.stages.ei2
    pretrain = Stage(
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
        init=model.init,
        loss=model.loss,
        predict=model.predict,
        history=config.model.history,
    )
    return (pretrain, last) if settings.init_from_pretrained else (last,)

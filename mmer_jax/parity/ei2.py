"""EI² against its reference values: tokens, contexts, logits, losses, training."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mmer_jax.config import base, stage
from mmer_jax.data.corpus import CorpusSpec, Modality, Task
from mmer_jax.data.missing import full_pattern
from mmer_jax.interop import torch_ei2
from mmer_jax.methods.ei2 import EI2
from mmer_jax.methods.ei2_context import last_of_units
from mmer_jax.methods.ei2_tasks import NO_DROPOUT
from mmer_jax.methods.encoding import choose
from mmer_jax.methods.stage import Batch, Patterns
from mmer_jax.parity.reference import Difference, difference, group
from mmer_jax.parity.training import compare_training

TASKS = ("emotion", "intent")


def compare_ei2(meta, arrays) -> Iterator[Difference]:
    config, spec = _config(meta, arrays)
    model = EI2(config, spec, config.stages.ei2)
    batch = _batch(spec, arrays, meta["history"])

    def networks(prefix):
        states = group(arrays, prefix)
        return jax.tree.map(jnp.asarray, torch_ei2.networks(states, meta["context_layers"]))

    @jax.jit
    def forward(params):
        own = last_of_units(batch)
        encoded = model.encode(params, own, NO_DROPOUT, None)
        embeddings = [choose(own.available, *pair) for pair in encoded]
        context = model.context(params["context"], batch)
        outputs, _ = model.outputs(params, batch, NO_DROPOUT)
        return context, model.fuse(params, embeddings, NO_DROPOUT, None), spec.split(outputs[0])

    context, fused, outputs = forward(networks("param"))
    # Theirs are [modality, batch, h].
    yield difference("output/context", context[0].swapaxes(0, 1), arrays["output/context"])
    for name, tokens, logits in zip(TASKS, fused, outputs, strict=True):
        key = f"output/{name}_tokens"
        yield difference(key, tokens[0].swapaxes(0, 1), arrays[key])
        key = f"output/{name}_logits"
        yield difference(key, logits, arrays[key])
    yield from compare_training(
        model,
        meta,
        arrays,
        batch,
        networks,
        hyper=dict.fromkeys(NO_DROPOUT, 0.0),
        names={f"task/{name}": name for name in TASKS} | {"task": "total"},
    )


def _config(meta, arrays) -> tuple[ConfigDict, CorpusSpec]:
    config = base()
    config.model.update(
        embedding=meta["hidden"],
        classifier=tuple(meta["cls_layers"]),
        text_widths=tuple(
            arrays[f"param/EmoL/conv{number}.weight"].shape[2] for number in (1, 2, 3)
        ),
        history=meta["history"],
        history_missing=False,
        fusion_heads=meta["transformer_heads"],
        feedforward=meta["transformer_feedforward"],
        interaction_heads=meta["attention_heads"],
        context_layers=meta["context_layers"],
        interaction=True,
        second_attention=True,
        gate=True,
        imagination=False,
    )
    config.stages.ei2 = stage(init_from_pretrained=False, focus=0.0)
    modalities = []
    for name in meta["token_order"]:
        _, steps, dim = arrays[f"input/{name}"].shape
        modalities.append(Modality(name, dim, max(steps, _turn_steps(arrays, name, meta))))
    classes = [meta["emotions"], meta["intents"]]
    tasks = (
        Task(name, tuple(str(c) for c in range(count)))
        for name, count in zip(TASKS, classes, strict=True)
    )
    speakers = len(arrays["param/Context/speaker_embedding.weight"])
    return config, CorpusSpec(tuple(modalities), tuple(tasks), speakers)


def _turn_steps(arrays, name: str, meta) -> int:
    """Steps of a turn: the file holds the turns joined in time, not where they end."""
    return -(-arrays[f"input/history_{name}"].shape[1] // meta["history"])


def _turns(x: np.ndarray, count: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """[n, T, D] -> ([n, count, steps, D], lengths [n, count]), cut into turns of `steps`."""
    ends = np.minimum(np.arange(1, count + 1) * steps, x.shape[1])
    padding = [(0, 0), (0, count * steps - x.shape[1]), (0, 0)]
    cut = np.pad(x, padding).reshape(len(x), count, steps, -1)
    return cut, np.broadcast_to(np.diff(ends, prepend=0), cut.shape[:2])


def _batch(spec: CorpusSpec, arrays, history: int) -> Batch:
    """Of each utterance its turns before and itself, one row after the other."""
    n, length, width = len(arrays["input/emotion"]), history + 1, len(spec.modalities)
    features, lengths = {}, {}
    for m in spec.modalities:
        before = _turns(arrays[f"input/history_{m.name}"], history, m.max_steps)
        own = _turns(arrays[f"input/{m.name}"], 1, m.max_steps)
        x, steps = (np.concatenate(parts, axis=1) for parts in zip(before, own, strict=True))
        features[m.name] = jnp.asarray(x.reshape(n * length, *x.shape[2:]))
        lengths[m.name] = jnp.asarray(steps.reshape(-1))
    labels = np.stack([arrays[f"input/{name}"] for name in TASKS], axis=1)
    speakers = [arrays["input/history_speaker"], arrays["input/speaker"]]
    last = np.arange(n * length) % length == history
    return Batch(
        features=features,
        lengths=lengths,
        present=jnp.ones((n * length, width), bool),
        labels=jnp.asarray(np.repeat(labels, length, axis=0), jnp.int32),
        weights=jnp.asarray(last, features[spec.names[0]].dtype),
        turns=jnp.ones((n, length), bool),
        available=jnp.ones((1, n * length, width), bool),
        patterns=Patterns.of(full_pattern(width)),
        noisy=None,
        frozen={},
        constants={},
        speakers=jnp.asarray(np.concatenate(speakers, axis=1).reshape(-1), jnp.int32),
    )

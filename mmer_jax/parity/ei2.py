"""EI² against its reference values: tokens, contexts, logits, losses, training."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mmer_jax.config import base, stage
from mmer_jax.data.corpus import CorpusSpec, Modality, Task
from mmer_jax.interop import torch_ei2
from mmer_jax.methods.ei2 import EI2, NO_DROPOUT
from mmer_jax.methods.stage import Batch, History
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
        context = model.contexts(params, batch, NO_DROPOUT, None)[: len(batch.weights)]
        fused = model.fused(params, batch, NO_DROPOUT, None)
        return context, fused, spec.split(model.predict(params, batch)[0])

    context, fused, outputs = forward(networks("param"))
    yield difference("output/context", context.swapaxes(0, 1), arrays["output/context"])
    for name, tokens, logits in zip(TASKS, fused, outputs, strict=True):
        key = f"output/{name}_tokens"  # [modality, batch, h]
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


def _padded(x: np.ndarray, steps: int, turns: int) -> tuple[jax.Array, jax.Array]:
    """[n, steps, D] -> ([n, turns, T, D], lengths [n, turns]), cut into turns of T = `steps`."""
    ends = np.minimum(np.arange(1, turns + 1) * steps, x.shape[1])
    lengths = np.diff(ends, prepend=0)
    padding = [(0, 0), (0, turns * steps - x.shape[1]), (0, 0)]
    cut = np.pad(x, padding).reshape(len(x), turns, steps, -1)
    return jnp.asarray(cut), jnp.broadcast_to(lengths, (len(x), turns))


def _batch(spec: CorpusSpec, arrays, turns: int) -> Batch:
    n, m = len(arrays["input/emotion"]), len(spec.modalities)
    own = {x.name: _padded(arrays[f"input/{x.name}"], x.max_steps, 1) for x in spec.modalities}
    before = {
        x.name: _padded(arrays[f"input/history_{x.name}"], x.max_steps, turns)
        for x in spec.modalities
    }
    speakers = [arrays["input/history_speaker"], arrays["input/speaker"]]
    history = History(
        features={name: x for name, (x, _) in before.items()},
        lengths={name: lengths for name, (_, lengths) in before.items()},
        present=jnp.ones((n, turns, m), bool),
        turns=jnp.ones((n, turns), bool),
        speakers=jnp.asarray(np.concatenate(speakers, axis=1), jnp.int32),
    )
    return Batch(
        features={name: x[:, 0] for name, (x, _) in own.items()},
        lengths={name: lengths[:, 0] for name, (_, lengths) in own.items()},
        present=jnp.ones((n, m), bool),
        labels=jnp.stack([jnp.asarray(arrays[f"input/{t}"], jnp.int32) for t in TASKS], axis=1),
        weights=jnp.ones(n),
        available=jnp.ones((1, n, m), bool),
        noisy=None,
        frozen={},
        constants={},
        history=history,
    )

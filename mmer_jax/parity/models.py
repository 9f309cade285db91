"""Whole methods against their reference values: outputs, loss terms, all patterns, training."""

from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mmer_jax.config import base, stage
from mmer_jax.data.corpus import CorpusSpec, Modality, Task
from mmer_jax.interop import torch_layout
from mmer_jax.methods.encoding import flatten
from mmer_jax.methods.ifmmin import IFMMIN
from mmer_jax.methods.imagination import teacher_target
from mmer_jax.methods.mmin import MMIN
from mmer_jax.methods.stage import Batch, Params
from mmer_jax.methods.utt_fusion import UttFusion
from mmer_jax.methods.utt_shared import UttShared
from mmer_jax.parity.reference import Difference, difference, group
from mmer_jax.parity.training import compare_training

ORDER = ("audio", "text", "visual")  # of our modality axis in these files
ALL_PATTERNS = ("a", "v", "t", "av", "at", "tv")  # rows of output/logits_all_patterns


def _config(meta, arrays):
    config = base()
    for name in ("mmin", "ifmmin"):
        config.stages[name] = stage(init_from_teacher=False)
    config.model.backward_cascade = "own"
    config.quirks.cascade_init = "kaiming"  # any: the weights are given
    config.model.invariant_input = True
    config.model.embedding = meta["embedding_dim"]
    config.model.cascade = tuple(meta["ae_layers"])
    config.model.blocks = meta["n_blocks"]
    config.model.classifier = tuple(meta["cls_layers"])
    config.quirks.pad_masking = meta["pad_masking"]
    names = [name for name in ORDER if f"input/{name}" in arrays]
    modalities = []
    for name in names:
        shape = arrays[f"input/{name}"].shape
        modalities.append(Modality(name, shape[-1], shape[1] if len(shape) == 3 else 0))
    classes = tuple(str(c) for c in range(meta["num_classes"]))
    return config, CorpusSpec(tuple(modalities), (Task("label", classes),))


def _batch(spec: CorpusSpec, arrays, available: np.ndarray) -> Batch:
    n = len(arrays["input/label"])
    return Batch(
        features={name: jnp.asarray(arrays[f"input/{name}"]) for name in spec.names},
        lengths={
            m.name: jnp.full(n, m.max_steps, jnp.int32) for m in spec.modalities if m.is_sequence
        },
        present=jnp.ones((n, len(spec.names)), bool),
        labels=jnp.asarray(arrays["input/label"], jnp.int32)[:, None],
        weights=jnp.ones(n),
        turns=jnp.ones((n, 1), bool),
        available=jnp.asarray(available),
        patterns=None,
        noisy=None,
        frozen={},
        constants={},
    )


def _networks(arrays, prefix: str) -> Params:
    """The networks of a state dict among the arrays."""
    return jax.tree.map(jnp.asarray, torch_layout.networks(group(arrays, prefix)))


def _compare_training(
    model, meta, arrays, batch: Batch, hyper, names: Mapping[str, str]
) -> Iterator[Difference]:
    return compare_training(
        model,
        meta,
        arrays,
        batch,
        lambda prefix: _networks(arrays, prefix),
        hyper={"dropout": 0.0, "encoder_dropout": 0.0, **hyper},
        names={"task": "ce", **names},
    )


def compare_utt_fusion(meta, arrays) -> Iterator[Difference]:
    config, spec = _config(meta, arrays)
    model = UttFusion(config, spec)
    batch = _full_batch(spec, arrays)
    params = _networks(arrays, "param")
    present, _ = model.encoders(params, batch)
    for i, name in enumerate(spec.names):
        yield difference(
            f"output/embedding_{name}", present[:, i], arrays[f"output/embedding_{name}"]
        )
    yield difference("output/logits", model.predict(params, batch)[0], arrays["output/logits"])
    yield from _compare_training(model, meta, arrays, batch, {}, {})


def compare_utt_shared(meta, arrays) -> Iterator[Difference]:
    config, spec = _config(meta, arrays)
    model = UttShared(config, spec)
    batch = _full_batch(spec, arrays)
    params = _networks(arrays, "param")
    present, _ = model.encoders(params, batch)
    invariants = model.invariant(params, present)
    for kind, tensor in (("embedding", present), ("invariant", invariants)):
        for i, name in enumerate(spec.names):
            key = f"output/{kind}_{name}"
            yield difference(key, tensor[:, i], arrays[key])
    yield difference("output/logits", model.predict(params, batch)[0], arrays["output/logits"])
    yield from _compare_training(model, meta, arrays, batch, {"cmd_weight": 1.0}, {})


def _full_batch(spec: CorpusSpec, arrays) -> Batch:
    n = len(arrays["input/label"])
    return _batch(spec, arrays, np.ones((1, n, len(spec.names)), bool))


def _pattern_batch(spec: CorpusSpec, arrays) -> Batch:
    columns = ["avt".index(name[0]) for name in spec.names]  # of available_avl
    available = arrays["input/available_avl"][:, columns].astype(bool)
    return _batch(spec, arrays, available[None])


def _compare_all_patterns(model, params: Params, batch: Batch, spec, arrays) -> Difference:
    each = np.array([[name[0] in pattern for name in spec.names] for pattern in ALL_PATTERNS])
    shape = (len(each), *batch.available.shape[1:])
    everything = batch._replace(available=jnp.broadcast_to(each[:, None], shape))
    key = "output/logits_all_patterns"
    return difference(key, model.predict(params, everything), arrays[key])


def compare_mmin(meta, arrays) -> Iterator[Difference]:
    config, spec = _config(meta, arrays)
    model = MMIN(config, spec)
    batch = _pattern_batch(spec, arrays)
    earlier = {"utt_fusion": _networks(arrays, "teacher")}
    batch = batch._replace(frozen=model.prepare(earlier, batch), constants=model.constants(earlier))
    params = _networks(arrays, "param")
    out = model.imagine(params, model.encoders(params, batch), batch.available)
    for name, ours in {
        "embeddings": flatten(out.embeddings)[0],
        "teacher_target": flatten(teacher_target(batch))[0],
        "reconstruction": flatten(out.imagined)[0],
        "cycle_reconstruction": flatten(model.back(params, out.imagined))[0],
        "latents": out.latents[0],
        "logits": out.logits[0],
    }.items():
        yield difference(f"output/{name}", ours, arrays[f"output/{name}"])
    yield _compare_all_patterns(model, params, batch, spec, arrays)
    weights = meta["loss_weights"]
    hyper = {"imagination_weight": weights["mse"], "cycle_weight": weights["cycle"]}
    yield from _compare_training(model, meta, arrays, batch, hyper, {"imagination": "mse"})


def compare_ifmmin(meta, arrays) -> Iterator[Difference]:
    config, spec = _config(meta, arrays)
    model = IFMMIN(config, spec)
    batch = _pattern_batch(spec, arrays)
    earlier = {"utt_shared": _networks(arrays, "teacher")}
    batch = batch._replace(frozen=model.prepare(earlier, batch), constants=model.constants(earlier))
    params = _networks(arrays, "param")
    out = model.imagine(params, model.encode(params, batch), batch.available)
    for name, ours in {
        "embeddings": flatten(out.embeddings)[0],
        "invariant": flatten(out.invariants)[0],
        "teacher_target": flatten(teacher_target(batch))[0],
        "teacher_invariant": flatten(batch.frozen["teacher_invariants"]),
        "reconstruction": flatten(out.imagined)[0],
        "latents": out.latents[0],
        "logits": out.logits[0],
    }.items():
        yield difference(f"output/{name}", ours, arrays[f"output/{name}"])
    yield _compare_all_patterns(model, params, batch, spec, arrays)
    weights = meta["loss_weights"]
    hyper = {"imagination_weight": weights["mse"], "invariance_weight": weights["invariant"]}
    names = {"imagination": "mse", "invariance": "invariant"}
    yield from _compare_training(model, meta, arrays, batch, hyper, names)

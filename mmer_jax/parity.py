"""python -m mmer_jax.parity FILE...: hold our numbers against the originals' reference values.

A file holds inputs, weights and outputs of one released PyTorch network or model, with all sizes in
`meta`. One line per quantity gives the largest absolute difference and its tolerance; the exit
status is 1 if any exceeds it, 2 if a file cannot be read.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmer_jax.config import base, stage
from mmer_jax.data.corpus import CorpusSpec, Modality
from mmer_jax.errors import UserError
from mmer_jax.interop import torch_layout
from mmer_jax.losses import cmd
from mmer_jax.methods.encoding import flatten
from mmer_jax.methods.ifmmin import IFMMIN
from mmer_jax.methods.stage import Batch, Params
from mmer_jax.methods.utt_fusion import UttFusion
from mmer_jax.methods.utt_shared import UttShared
from mmer_jax.nn.encoders import FcEncoder, LSTMEncoder, TextCNN
from mmer_jax.optimizer import make_optimizer

TOLERANCE = 1e-5
ORDER = ("audio", "text", "visual")  # of our modality axis in these files
ALL_PATTERNS = ("a", "v", "t", "av", "at", "tv")  # rows of output/logits_all_patterns


class Difference(NamedTuple):
    quantity: str
    largest: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.largest <= self.tolerance  # False for NaN


def compare(path: Path) -> list[Difference]:
    """All quantities of one file."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        meta = json.loads(str(arrays.pop("meta")))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is not a reference file: {error}") from None
    model = meta.get("model")
    if model not in COMPARISONS:
        raise UserError(f"{path} holds model '{model}'; known are: {', '.join(COMPARISONS)}")
    jax.config.update("jax_default_matmul_precision", "highest")  # no TF32 on GPUs
    dtype = jnp.zeros(()).dtype  # float64 under JAX_ENABLE_X64
    arrays = {n: a.astype(dtype) if a.dtype.kind == "f" else a for n, a in arrays.items()}
    return list(COMPARISONS[model](meta, arrays))


def _difference(quantity: str, ours, reference) -> Difference:
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    if ours.shape != reference.shape:
        raise UserError(f"{quantity} has shape {reference.shape} in the file, ours {ours.shape}")
    return Difference(quantity, float(np.max(np.abs(ours - reference), initial=0)), TOLERANCE)


def _group(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, dict[str, np.ndarray]]:
    """{'A': {'rnn.bias': ...}} from the names 'prefix/A/rnn.bias'."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        if name.startswith(prefix + "/"):
            network, tensor = name[len(prefix) + 1 :].split("/", 1)
            found.setdefault(network, {})[tensor] = array
    return found


# ---- single parts ----


def _compare_cmd(meta, arrays) -> Iterator[Difference]:
    for case in sorted({name.split("/")[0] for name in arrays}):
        x, y = jnp.asarray(arrays[f"{case}/x1"]), jnp.asarray(arrays[f"{case}/x2"])

        def value(x, y):
            return cmd(x, y, n_moments=meta["n_moments"])

        yield _difference(f"{case}/value", value(x, y), arrays[f"{case}/value"])
        for name, gradient in zip(
            ("grad_x1", "grad_x2"), jax.grad(value, argnums=(0, 1))(x, y), strict=True
        ):
            yield _difference(f"{case}/{name}", gradient, arrays[f"{case}/{name}"])


def _compare_encoders(meta, arrays) -> Iterator[Difference]:
    states, size = _group(arrays, "param"), meta["embedding_dim"]
    channels = states["textcnn"]["conv1.weight"].shape[0] if "textcnn" in states else 0
    layers = [s.shape[0] for n, s in states.get("fc", {}).items() if n.endswith("weight")]
    modules = {
        "lstm_maxpool": (LSTMEncoder(size, "maxpool"), "audio"),
        "lstm_last": (LSTMEncoder(size, "last"), "audio"),
        "textcnn": (TextCNN(size, channels), "text"),
        "fc": (FcEncoder(tuple(layers)), "audio_utterance"),
    }
    for name, reference in arrays.items():
        if not name.startswith("output/"):
            continue
        network = name.removeprefix("output/").removesuffix("_zero_input")
        module, given = modules[network]
        x = arrays[f"input/{given}"]
        x = jnp.asarray(np.zeros_like(x) if name.endswith("_zero_input") else x)
        params = jax.tree.map(jnp.asarray, torch_layout.encoder(states[network]))
        yield _difference(name, module.apply({"params": params}, x, _all_steps(x)), reference)


def _all_steps(x):
    return jnp.full(len(x), x.shape[1], jnp.int32) if x.ndim == 3 else None


# ---- whole models ----


def _config(meta, arrays):
    config = base()
    config.stages.ifmmin = stage(init_from_teacher=False)
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
    return config, CorpusSpec(tuple(modalities), classes)


def _batch(spec: CorpusSpec, arrays, available: np.ndarray) -> Batch:
    n = len(arrays["input/label"])
    return Batch(
        features={name: jnp.asarray(arrays[f"input/{name}"]) for name in spec.names},
        lengths={
            m.name: jnp.full(n, m.max_steps, jnp.int32) for m in spec.modalities if m.is_sequence
        },
        present=jnp.ones((n, len(spec.names)), bool),
        labels=jnp.asarray(arrays["input/label"], jnp.int32),
        weights=jnp.ones(n),
        available=jnp.asarray(available),
        frozen={},
        constants={},
    )


def _networks(arrays, group: str) -> Params:
    """The networks of a state dict among the arrays."""
    return jax.tree.map(jnp.asarray, torch_layout.networks(_group(arrays, group)))


def _compare_training(
    model, meta, arrays, batch: Batch, hyper, names: Mapping[str, str]
) -> Iterator[Difference]:
    """Loss terms, the loss before every step and the parameters after the last step."""
    params = _networks(arrays, "param")
    setup = meta["optimizer"]
    optimizer = make_optimizer(
        b1=setup["b1"],
        weight_decay=setup["weight_decay_l2"],
        clip=setup["clip_norm_per_network"],
    )
    names = {"task": "ce", **names}
    hyper = {"dropout": 0.0, "encoder_dropout": 0.0, **hyper}
    hyper = {name: jnp.asarray(float(value)) for name, value in hyper.items()}
    state = optimizer.init(params)
    step_fn = jax.jit(
        lambda params: jax.value_and_grad(model.loss, has_aux=True)(
            params, batch, jax.random.key(0), hyper
        )
    )
    for step in range(meta["steps"]):
        (total, terms), gradients = step_fn(params)
        if step == 0:
            for name, ours in (terms | {"total": total}).items():
                key = f"loss/{names.get(name, name)}"
                yield _difference(key, ours, arrays[key])
        yield _difference(f"loss_curve/{step}", total, arrays[f"loss_curve/{step}"])
        direction, state = optimizer.update(gradients, state, params)
        params = jax.tree.map(lambda p, d: p - setup["lr"] * d, params, direction)
    after = torch_layout.networks(_group(arrays, f"param_after_{meta['steps']}_steps"))
    for network, reference in after.items():
        worst = jax.tree.map(lambda a, b: float(np.max(np.abs(a - b))), params[network], reference)
        largest = float(np.max(jax.tree.leaves(worst)))  # unlike max(), keeps a NaN
        yield Difference(f"param_after_{meta['steps']}_steps/{network}", largest, TOLERANCE)


def _compare_utt_fusion(meta, arrays) -> Iterator[Difference]:
    config, spec = _config(meta, arrays)
    model = UttFusion(config, spec)
    batch = _full_batch(spec, arrays)
    params = _networks(arrays, "param")
    present, _ = model.encoders(params, batch)
    for i, name in enumerate(spec.names):
        yield _difference(
            f"output/embedding_{name}", present[:, i], arrays[f"output/embedding_{name}"]
        )
    yield _difference("output/logits", model.predict(params, batch)[0], arrays["output/logits"])
    yield from _compare_training(model, meta, arrays, batch, {}, {})


def _compare_utt_shared(meta, arrays) -> Iterator[Difference]:
    config, spec = _config(meta, arrays)
    model = UttShared(config, spec)
    batch = _full_batch(spec, arrays)
    params = _networks(arrays, "param")
    present, _ = model.encoders(params, batch)
    invariants = model.invariant(params, present)
    for kind, tensor in (("embedding", present), ("invariant", invariants)):
        for i, name in enumerate(spec.names):
            key = f"output/{kind}_{name}"
            yield _difference(key, tensor[:, i], arrays[key])
    yield _difference("output/logits", model.predict(params, batch)[0], arrays["output/logits"])
    yield from _compare_training(model, meta, arrays, batch, {"cmd_weight": 1.0}, {})


def _full_batch(spec: CorpusSpec, arrays) -> Batch:
    n = len(arrays["input/label"])
    return _batch(spec, arrays, np.ones((1, n, len(spec.names)), bool))


def _compare_ifmmin(meta, arrays) -> Iterator[Difference]:
    config, spec = _config(meta, arrays)
    model = IFMMIN(config, spec)
    columns = ["avt".index(name[0]) for name in spec.names]  # of available_avl
    available = arrays["input/available_avl"][:, columns].astype(bool)
    batch = _batch(spec, arrays, available[None])
    earlier = {"utt_shared": _networks(arrays, "teacher")}
    batch = batch._replace(frozen=model.prepare(earlier, batch), constants=model.constants(earlier))
    params = _networks(arrays, "param")
    out = model.imagine(params, model.encode(params, batch), batch.available)
    for name, ours in {
        "embeddings": flatten(out.embeddings)[0],
        "invariant": flatten(out.invariants)[0],
        "teacher_target": flatten(model.target(batch))[0],
        "teacher_invariant": flatten(batch.frozen["teacher_invariants"]),
        "reconstruction": flatten(out.imagined)[0],
        "latents": out.latents[0],
        "logits": out.logits[0],
    }.items():
        yield _difference(f"output/{name}", ours, arrays[f"output/{name}"])
    each = np.array([[name[0] in pattern for name in spec.names] for pattern in ALL_PATTERNS])
    everything = batch._replace(
        available=jnp.broadcast_to(each[:, None], (len(each), *available.shape))
    )
    yield _difference(
        "output/logits_all_patterns",
        model.predict(params, everything),
        arrays["output/logits_all_patterns"],
    )
    weights = meta["loss_weights"]
    hyper = {"imagination_weight": weights["mse"], "invariance_weight": weights["invariant"]}
    names = {"imagination": "mse", "invariance": "invariant"}
    yield from _compare_training(model, meta, arrays, batch, hyper, names)


COMPARISONS = {
    "cmd": _compare_cmd,
    "encoders": _compare_encoders,
    "utt_fusion": _compare_utt_fusion,
    "utt_shared": _compare_utt_shared,
    "ifmmin": _compare_ifmmin,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    args = parser.parse_args(argv)
    failed = 0
    for path in args.files:
        try:
            differences = compare(path)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        for d in differences:
            verdict = "ok" if d.ok else "FAIL"
            print(f"{verdict:4} {path.name:18} {d.quantity:36} {d.largest:.2e} ≤ {d.tolerance:.0e}")
            failed += not d.ok
    if failed:
        print(f"{failed} quantities differ by more than their tolerance", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Single parts against their reference values: CMD, encoders, noise schedules, NMER's VAE."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from mmer_jax.interop import torch_layout
from mmer_jax.losses import cmd
from mmer_jax.nn.encoders import FcEncoder, LSTMEncoder, TextCNN
from mmer_jax.parity.reference import Difference, difference, group


def compare_cmd(meta, arrays) -> Iterator[Difference]:
    for case in sorted({name.split("/")[0] for name in arrays}):
        x, y = jnp.asarray(arrays[f"{case}/x1"]), jnp.asarray(arrays[f"{case}/x2"])

        def value(x, y):
            return cmd(x, y, n_moments=meta["n_moments"])

        yield difference(f"{case}/value", value(x, y), arrays[f"{case}/value"])
        for name, gradient in zip(
            ("grad_x1", "grad_x2"), jax.grad(value, argnums=(0, 1))(x, y), strict=True
        ):
            yield difference(f"{case}/{name}", gradient, arrays[f"{case}/{name}"])


def compare_encoders(meta, arrays) -> Iterator[Difference]:
    states, size = group(arrays, "param"), meta["embedding_dim"]
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
        yield difference(name, module.apply({"params": params}, x, _all_steps(x)), reference)


def _all_steps(x):
    return jnp.full(len(x), x.shape[1], jnp.int32) if x.ndim == 3 else None

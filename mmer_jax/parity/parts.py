"""Single parts against their reference values: CMD, encoders, noise schedules, NMER's VAE."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from mmer_jax.data.noise import betas, scales
from mmer_jax.interop import torch_layout
from mmer_jax.losses import cmd, kl_to_normal
from mmer_jax.nn.encoders import FcEncoder, LSTMEncoder, TextCNN
from mmer_jax.nn.vae import ConditionalVAE
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


def compare_nmer_noise(meta, arrays) -> Iterator[Difference]:
    for name in sorted({name.split("/")[0] for name in arrays}):
        ours = {"squaredcos_cap_v2": "cosine"}.get(name, name)
        beta = betas(ours, meta["num_time_steps"], meta["beta_start"], meta["beta_end"])
        signal, scale = scales(beta)
        for quantity, value in (("betas", beta), ("signal_scale", signal), ("noise_scale", scale)):
            yield difference(f"{name}/{quantity}", value, arrays[f"{name}/{quantity}"])


def compare_nmer_vae_encoder(meta, arrays) -> Iterator[Difference]:
    vae = ConditionalVAE(
        latent=meta["latent_dim"],
        layers=meta["num_layers"],
        heads=meta["num_heads"],
        feedforward=meta["feedforward_dim"],
        attention=meta["attention_axis"],
    )
    params = jax.tree.map(jnp.asarray, torch_layout.vae_encoder(group(arrays, "param")["VAE"]))
    x, condition = (jnp.asarray(arrays[f"input/{name}"])[:, None] for name in ("x", "condition"))
    mean, log_variance = vae.apply(
        {"params": params}, x, condition, jnp.ones(len(x), bool), method="encode"
    )
    yield difference("output/mu", mean, arrays["output/mu"])
    yield difference("output/logvar", log_variance, arrays["output/logvar"])
    reconstruction = jnp.asarray(arrays["input/reconstruction"])
    loss = jnp.mean((reconstruction - x[:, 0]) ** 2) + jnp.sum(kl_to_normal(mean, log_variance))
    yield difference("loss/vae", loss, arrays["loss/vae"])

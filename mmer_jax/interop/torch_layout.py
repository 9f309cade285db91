"""From the released PyTorch networks' state dicts to our parameters.

A network's state dict is a mapping of tensor names to arrays in PyTorch's layouts: Linear weight
[out, in], LSTM gates i, f, g, o stacked, convolution [out, 1, width, D].
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

StateDict = Mapping[str, np.ndarray]

# Network letters of the released code, by modality.
LETTERS = {"audio": "A", "text": "L", "visual": "V"}


def lstm(state: StateDict) -> dict[str, Any]:
    return {
        "w_input": state["rnn.weight_ih_l0"].T,
        "w_hidden": state["rnn.weight_hh_l0"].T,
        "b_input": state["rnn.bias_ih_l0"],
        "b_hidden": state["rnn.bias_hh_l0"],
    }


def text_cnn(state: StateDict) -> dict[str, Any]:
    params: dict[str, Any] = {"out": linear(state, "embd.0")}
    for number, width in enumerate((3, 4, 5), start=1):
        params[f"conv{width}_kernel"] = state[f"conv{number}.weight"][:, 0].transpose(1, 2, 0)
        params[f"conv{width}_bias"] = state[f"conv{number}.bias"]
    return params


def fc_layers(state: StateDict) -> dict[str, Any]:
    """Linear layers `module.K` in order; K counts activations and dropouts between them too."""
    numbers = sorted(
        int(found[1]) for name in state if (found := re.fullmatch(r"module\.(\d+)\.weight", name))
    )
    return {f"layer{i}": linear(state, f"module.{number}") for i, number in enumerate(numbers)}


def classifier(state: StateDict) -> dict[str, Any]:
    return fc_layers(state) | {"out": linear(state, "fc_out")}


def shared(state: StateDict) -> dict[str, Any]:
    return {f"shared{i}": linear(state, f"netshared.shared_{i}") for i in (1, 2)}


def cascade(state: StateDict) -> dict[str, Any]:
    """Blocks are stacked [n_blocks, ...]."""
    n_blocks = len({name.split(".")[0] for name in state if name.startswith("encoder_")})
    depth = len({name.split(".")[1] for name in state if name.startswith("encoder_0.")})
    blocks = {
        f"{half}{i}": {
            part: np.stack([linear(state, f"{half}_{n}.{2 * i}")[part] for n in range(n_blocks)])
            for part in ("kernel", "bias")
        }
        for half in ("encoder", "decoder")
        for i in range(depth)
    }
    return {
        "blocks": blocks,
        "transition0": linear(state, "transition.0"),
        "transition1": linear(state, "transition.2"),
    }


def vae_encoder(state: StateDict) -> dict[str, Any]:
    """The encoder of NMER's VAE: torch.nn.TransformerEncoderLayer's tensors, μ and log σ²."""
    numbers = {int(name.split(".")[2]) for name in state if name.startswith("encoder.layers.")}
    layers = [_transformer_layer(state, f"encoder.layers.{number}") for number in sorted(numbers)]
    return {
        "layers": jax.tree.map(lambda *leaves: np.stack(leaves), *layers),
        "mean": linear(state, "fc_mu"),
        "log_variance": linear(state, "fc_var"),
    }


def _transformer_layer(state: StateDict, name: str) -> dict[str, Any]:
    return {
        "attention": {
            "projection": {
                "kernel": state[f"{name}.self_attn.in_proj_weight"].T,
                "bias": state[f"{name}.self_attn.in_proj_bias"],
            },
            "out": linear(state, f"{name}.self_attn.out_proj"),
        },
        "linear1": linear(state, f"{name}.linear1"),
        "linear2": linear(state, f"{name}.linear2"),
        "norm1": norm(state, f"{name}.norm1"),
        "norm2": norm(state, f"{name}.norm2"),
    }


def norm(state: StateDict, name: str) -> dict[str, np.ndarray]:
    return {"scale": state[f"{name}.weight"], "bias": state[f"{name}.bias"]}


def linear(state: StateDict, name: str) -> dict[str, np.ndarray]:
    return {"kernel": state[f"{name}.weight"].T, "bias": state[f"{name}.bias"]}


def encoder(state: StateDict) -> dict[str, Any]:
    """The encoder that a state dict's tensor names show it to be."""
    if "rnn.weight_ih_l0" in state:
        return lstm(state)
    return text_cnn(state) if "conv1.weight" in state else fc_layers(state)


def networks(states: Mapping[str, StateDict]) -> dict[str, Any]:
    """The parameters of utt_fusion, utt_shared, mmin or ifmmin from their networks' state dicts."""
    params = {
        f"encoder_{modality}": encoder(states[letter])
        for modality, letter in LETTERS.items()
        if letter in states
    }
    params["classifier"] = classifier(states["C"])
    for name in ("Shared", "invariant"):
        if name in states:
            params["shared"] = shared(states[name])
    for name, ours in (("AE", "cascade"), ("AE_cycle", "backward_cascade")):
        if name in states:
            params[ours] = cascade(states[name])
    return params

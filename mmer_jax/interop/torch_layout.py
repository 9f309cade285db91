"""The released PyTorch networks' state dicts and our parameters, either way.

A network's state dict is a mapping of tensor names to arrays in PyTorch's layouts: Linear weight
[out, in], LSTM gates i, f, g, o stacked, convolution [out, 1, width, D]. For each network one list
of `Tensor` says where each of its tensors stands among our parameters; import, export and the check
of names and shapes all read it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mmer_jax.nn.encoders import WIDTHS

StateDict = Mapping[str, np.ndarray]

# Network letters of the released code, by modality.
LETTERS = {"audio": "A", "text": "L", "visual": "V"}
# The other networks by our names; the SharedEncoder's differs between the stages that have it.
NETWORKS = {"classifier": "C", "cascade": "AE", "backward_cascade": "AE_cycle"}
SHARED = {"utt_shared": "Shared", "ifmmin": "invariant"}
ALL = (*LETTERS.values(), *NETWORKS.values(), *SHARED.values())


class Tensor(NamedTuple):
    """One tensor of a state dict and where it stands among our network's parameters."""

    name: str
    path: tuple[str, ...]
    layout: str = "same"  # same | linear (transposed) | conv
    block: int | None = None  # ours are stacked over blocks


# ---- which tensors a network has ----


def _linear(name: str, *path: str, block: int | None = None) -> list[Tensor]:
    return [
        Tensor(f"{name}.weight", (*path, "kernel"), "linear", block),
        Tensor(f"{name}.bias", (*path, "bias"), "same", block),
    ]


def _lstm() -> list[Tensor]:
    return [
        Tensor("rnn.weight_ih_l0", ("w_input",), "linear"),
        Tensor("rnn.weight_hh_l0", ("w_hidden",), "linear"),
        Tensor("rnn.bias_ih_l0", ("b_input",)),
        Tensor("rnn.bias_hh_l0", ("b_hidden",)),
    ]


def gru(name: str, layers: int, *path: str) -> list[Tensor]:
    """A bidirectional GRU (gates r, z, n); ours are stacked over its two directions."""
    return [
        Tensor(f"{name}.{theirs}_l{i}{direction}", (*path, f"{ours}_{i}"), layout, block)
        for i in range(layers)
        for theirs, ours, layout in (
            ("weight_ih", "w_input", "linear"),
            ("weight_hh", "w_hidden", "linear"),
            ("bias_ih", "b_input", "same"),
            ("bias_hh", "b_hidden", "same"),
        )
        for block, direction in enumerate(("", "_reverse"))
    ]


def _text_cnn(widths: Sequence[int] = WIDTHS) -> list[Tensor]:
    tensors = _linear("embd.0", "out")
    for number, width in enumerate(widths, start=1):
        tensors.append(Tensor(f"conv{number}.weight", (f"conv{width}_kernel",), "conv"))
        tensors.append(Tensor(f"conv{number}.bias", (f"conv{width}_bias",)))
    return tensors


def _fc(numbers: Iterable[int]) -> list[Tensor]:
    """Linear layers `module.K`; K counts activations and dropouts between them too."""
    return [t for i, k in enumerate(numbers) for t in _linear(f"module.{k}", f"layer{i}")]


def _shared() -> list[Tensor]:
    return [t for i in (1, 2) for t in _linear(f"netshared.shared_{i}", f"shared{i}")]


def _cascade(n_blocks: int, depth: int) -> list[Tensor]:
    blocks = [
        t
        for half in ("encoder", "decoder")
        for n in range(n_blocks)
        for i in range(depth)
        for t in _linear(f"{half}_{n}.{2 * i}", "blocks", f"{half}{i}", block=n)
    ]
    return [
        *blocks,
        *_linear("transition.0", "transition0"),
        *_linear("transition.2", "transition1"),
    ]


def tensors_by_name(names: Iterable[str]) -> list[Tensor]:
    """The tensors of the network that a state dict's names show it to be."""
    names = set(names)
    if any(name.startswith("rnn.") for name in names):
        return _lstm()
    if any(name.startswith("conv") for name in names):
        return _text_cnn()
    if any(name.startswith("netshared.") for name in names):
        return _shared()
    if any(name.startswith("encoder_") for name in names):
        return _cascade(*cascade_size(names))
    out = _linear("fc_out", "out") if any(name.startswith("fc_out.") for name in names) else []
    return _fc(linear_numbers(names)) + out


def tensors_of(params: Mapping[str, Any], *, dropout: bool = False) -> list[Tensor]:
    """The tensors of one of our networks.

    Args:
      params: of the network; shapes suffice.
      dropout: whether the original has dropout layers, which count in the numbers of the Linear
        layers: these stand at 0, 3 with dropout and at 0, 2 without.
    """
    if "w_input" in params:
        return _lstm()
    if "conv3_kernel" in params:
        return _text_cnn()
    if "shared1" in params:
        return _shared()
    if "blocks" in params:
        depth = sum(name.startswith("encoder") for name in params["blocks"])
        return _cascade(params["blocks"]["encoder0"]["bias"].shape[0], depth)
    layers = sum(name.startswith("layer") for name in params)
    out = _linear("fc_out", "out") if "out" in params else []
    return _fc((3 if dropout else 2) * i for i in range(layers)) + out


def cascade_size(names: Iterable[str]) -> tuple[int, int]:
    """(blocks, layers per encoder) by the highest numbers among the names."""
    found = [re.match(r"(?:en|de)coder_(\d+)\.(\d+)\.", name) for name in names]
    numbers = [(int(m[1]), int(m[2]) // 2) for m in found if m]
    return tuple(1 + max(n[i] for n in numbers) for i in (0, 1)) if numbers else (0, 0)  # type: ignore


def linear_numbers(names: Iterable[str]) -> list[int]:
    """K of the layers `module.K`, in order."""
    found = [re.fullmatch(r"module\.(\d+)\.(?:weight|bias)", name) for name in names]
    return sorted({int(m[1]) for m in found if m})


# ---- values ----


def from_torch(tensors: Sequence[Tensor], state: StateDict) -> dict[str, Any]:
    """Our parameters of one network; blocks are stacked [n_blocks, ...]."""
    parts: dict[tuple[str, ...], list[np.ndarray]] = {}
    for t in tensors:
        x = state[t.name]
        if t.layout == "linear":
            x = x.T
        elif t.layout == "conv":
            x = x[:, 0].transpose(1, 2, 0)
        parts.setdefault(t.path, []).append(x)
    stacked = {t.path: t.block is not None for t in tensors}
    params: dict[str, Any] = {}
    for path, values in parts.items():
        node = params
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = np.stack(values) if stacked[path] else values[0]
    return params


def to_torch(tensors: Sequence[Tensor], params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The state dict of one network of ours."""
    state = {}
    for t in tensors:
        x: Any = params
        for key in t.path:
            x = x[key]
        x = x if t.block is None else x[t.block]
        if t.layout == "linear":
            x = x.T
        elif t.layout == "conv":
            x = x.transpose(2, 0, 1)[:, None]
        state[t.name] = x
    return state


def encoder(state: StateDict) -> dict[str, Any]:
    """The parameters of the network that a state dict's names show it to be."""
    return from_torch(tensors_by_name(state), state)


def text_cnn(state: StateDict) -> dict[str, Any]:
    """The parameters of a TextCNN of whatever widths."""
    kernels = [state[f"conv{number}.weight"] for number in (1, 2, 3)]
    return from_torch(_text_cnn([kernel.shape[2] for kernel in kernels]), state)


def letter(network: str, stage: str) -> str | None:
    """The original's name of our network of a stage; None if it has none."""
    if network == "shared":
        return SHARED.get(stage)
    return NETWORKS.get(network) or LETTERS.get(network.removeprefix("encoder_"))


def networks(states: Mapping[str, StateDict]) -> dict[str, Any]:
    """The parameters of utt_fusion, utt_shared, mmin or ifmmin from their networks' state dicts."""
    ours = {letter: f"encoder_{modality}" for modality, letter in LETTERS.items()}
    ours |= {letter: name for name, letter in NETWORKS.items()}
    ours |= {letter: "shared" for letter in SHARED.values()}
    return {ours[name]: encoder(state) for name, state in states.items() if name in ours}


# ---- NMER ----


def vae_encoder(state: StateDict) -> dict[str, Any]:
    """The encoder of NMER's VAE: torch.nn.TransformerEncoderLayer's tensors, μ and log σ²."""
    numbers = {int(name.split(".")[2]) for name in state if name.startswith("encoder.layers.")}
    layers = [transformer_layer(state, f"encoder.layers.{number}") for number in sorted(numbers)]
    return {
        "layers": jax.tree.map(lambda *leaves: np.stack(leaves), *layers),
        "mean": linear(state, "fc_mu"),
        "log_variance": linear(state, "fc_var"),
    }


def transformer_layer(state: StateDict, name: str) -> dict[str, Any]:
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

"""The released networks of EI² (MC-EIU) as our parameters."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmer_jax.interop import torch_layout
from mmer_jax.interop.torch_layout import LETTERS, StateDict

TASKS = ("Emo", "Int")  # our tasks 0 and 1
INTERACTIONS = ("Emo_Int_interaction", "Int_Emo_interaction")


def networks(states: Mapping[str, StateDict], layers: int) -> dict[str, Any]:
    """The parameters of `methods.ei2.EI2`.

    `Context/context_linear` and `context_attention` take no part in the released model and are left
    out.

    Args:
      states: network -> state dict.
      layers: of the context encoder's GRUs.
    """
    params: dict[str, Any] = {}
    for i, task in enumerate(TASKS):
        for modality, letter in LETTERS.items():
            state = states[task + letter]
            convert = torch_layout.text_cnn if "conv1.weight" in state else torch_layout.encoder
            params[f"task{i}_encoder_{modality}"] = convert(state)
        fusion = torch_layout.transformer_layer(states[f"{task}Fusion"], "layers.0")
        params[f"task{i}_fusion"] = fusion
        params[f"task{i}_classifier"] = torch_layout.encoder(states[f"{task}C"])
        interaction = states[INTERACTIONS[i]]
        params[f"task{i}_interaction"] = {
            ours: cross_attention(interaction, theirs)
            for ours, theirs in (("first", "inter_attention"), ("second", "hence_attention"))
        }
    return params | {"context": context(states["Context"], layers)}


def context(state: StateDict, layers: int) -> dict[str, Any]:
    """The context encoder's parameters."""
    params: dict[str, Any] = {
        "speaker_embedding": {"embedding": state["speaker_embedding.weight"]},
        "speaker": torch_layout.linear(state, "speaker_linear"),
    }
    for modality in LETTERS:
        gru = torch_layout.gru(f"{modality}_gru", layers)
        params |= {
            f"project_{modality}": torch_layout.linear(state, f"{modality}_emb_linear"),
            f"gru_{modality}": torch_layout.from_torch(gru, state),
            f"out_{modality}": torch_layout.linear(state, f"{modality}_gru_linear.0"),
        }
    return params


def cross_attention(state: StateDict, name: str) -> dict[str, Any]:
    """torch.nn.MultiheadAttention: one matrix for queries, keys and values in a row."""
    size = state[f"{name}.in_proj_weight"].shape[1]
    weight, bias = (np.asarray(state[f"{name}.in_proj_{n}"]) for n in ("weight", "bias"))
    return {
        "query": {"kernel": weight[:size].T, "bias": bias[:size]},
        "key_value": {"kernel": weight[size:].T, "bias": bias[size:]},
        "out": torch_layout.linear(state, f"{name}.out_proj"),
    }

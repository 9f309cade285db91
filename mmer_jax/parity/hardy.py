"""HARDY-MER's networks, hardness, reconstruction loss and curriculum against reference values."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mmer_jax.data.corpus import CorpusSpec, Modality, Task
from mmer_jax.errors import UserError
from mmer_jax.interop.torch_layout import StateDict, linear
from mmer_jax.losses import weighted_mean
from mmer_jax.methods import curriculum
from mmer_jax.methods.hardness import hardness, reconstruction_error
from mmer_jax.methods.hardy_networks import HardyNetworks, Turns
from mmer_jax.methods.stage import Params
from mmer_jax.parity.reference import Difference, difference, group

LETTERS = {"audio": "a", "text": "t", "visual": "v"}  # in the order of these files' features
SETTINGS = {"alpha_direct": 0.6, "alpha_indirect": 0.4, "beta": 4.0}
# The released code confuses the two cross-attentions of audio and visual.
CROSS = {"av": "va", "va": "av"}


def compare_student(meta, arrays) -> Iterator[Difference]:
    yield from _compare(meta, arrays, teacher=False)


def compare_teacher(meta, arrays) -> Iterator[Difference]:
    yield from _compare(meta, arrays, teacher=True)


def _compare(meta, arrays, *, teacher: bool) -> Iterator[Difference]:
    networks = _networks(meta, arrays)
    params = _params(networks, group(arrays, "param")["model"], teacher)
    given = {name: jnp.asarray(x) for name, x in arrays.items() if name.startswith("input/")}
    features, full = (
        given[f"input/{name}"].swapaxes(0, 1)
        for name in ("features_seq_batch_dim", "full_features")
    )
    real = given["input/utterance_mask_batch_seq"] > 0
    present = given["input/available_seq_batch_3"].swapaxes(0, 1) > 0
    keys = present & real[..., None]
    one = jnp.zeros(real.shape, jnp.int32)  # a row is a dialogue
    pattern = arrays["input/available_seq_batch_3"].reshape(-1, len(LETTERS))[:1] > 0
    # With the pattern padding turns are encoded as they are: these files compare them as well.
    turns = Turns(features, None, keys, keys[:, None], pattern, one)
    for stage, experts in (("output_first_stage", False), ("output", teacher)):
        ours = jax.jit(
            lambda params, experts=experts: _outputs(networks, params, turns, teacher, experts)
        )(params)
        for name, value in ours.items():
            if f"{stage}/{name}" in arrays:
                yield difference(f"{stage}/{name}", value, arrays[f"{stage}/{name}"])
    # What follows is of the second stage.
    reconstructed = ours["rec_feats"].swapaxes(0, 1)
    error = reconstruction_error(reconstructed, full, ~present, dims=networks.dims)
    direct = jnp.where(real, error, 0.0) / len(networks.dims)
    key = "loss/reconstruction_per_utterance"
    yield difference(key, direct, arrays[key])
    # The released loss lays a mask [batch, turns] over errors [turns, batch].
    loss = weighted_mean(error.T.reshape(-1), real.reshape(-1).astype(error.dtype))
    yield difference("loss/reconstruction", loss, arrays["loss/reconstruction"])
    if teacher:
        indirect = ours["mi_at"] + ours["mi_av"] + ours["mi_tv"]
        yield difference("output/total_mi", indirect, arrays["output/total_mi"])
        everything = jnp.ones_like(real)  # the released scales include padding
        value = hardness(direct, indirect, everything, **SETTINGS)
        yield difference("output/hardness", value, arrays["output/hardness"])


def _outputs(networks: HardyNetworks, params, turns: Turns, teacher: bool, experts: bool):
    """Everything that a forward pass gives, by the names of the files."""
    encoded, keys = networks.encode(params, turns, experts=experts)[:, 0], turns.keys[:, 0]
    logits, reconstructed = networks.joint(params, jnp.where(keys[..., None], encoded, 0.0))
    each = networks.classify_each(params, encoded)
    ours = {f"out_{x}": each[..., m, :] for m, x in enumerate(LETTERS.values())}
    if teacher:
        found = networks.informations(params, encoded, keys, turns.segments)
        ours |= {f"mi_{pair}": found[..., i] for i, pair in enumerate(("at", "av", "tv"))}
    return ours | {"out": logits, "rec_feats": reconstructed.swapaxes(0, 1)}


def _networks(meta, arrays) -> HardyNetworks:
    if meta["mlp_ratio"] != 1:
        raise UserError(f"mlp_ratio is {meta['mlp_ratio']}; only 1 is supported")
    dims = dict(zip(LETTERS, meta["dims_audio_text_visual"], strict=True))
    spec = CorpusSpec(
        tuple(Modality(name, dim) for name, dim in dims.items()),
        (Task("label", tuple(str(c) for c in range(meta["num_classes"]))),),
    )
    decoder = len(arrays["param/model/autoencoder_decoder.0.bias"])
    sizes = {
        k: meta[v] for k, v in (("embedding", "hidden"), ("heads", "heads"), ("depth", "depth"))
    }
    return HardyNetworks(ConfigDict(sizes | {"decoder": decoder}), spec)


def _params(networks: HardyNetworks, state: StateDict, teacher: bool) -> Params:
    params: Params = {
        "joint": {
            "hidden": linear(state, "proj1"),
            "out": linear(state, "nlp_head"),
            "decoder0": linear(state, "autoencoder_decoder.0"),
            "decoder1": linear(state, "autoencoder_decoder.2"),
        }
    }
    for name, letter in LETTERS.items():
        blocks = [
            {"attention": _attention(state, f"block.blocks.{n}.Transformer_{letter}")}
            for n in range(networks.encoder.depth)
        ]
        params[f"encoder_{name}"] = {
            "projection": linear(state, f"{letter}_in_proj.0"),
            "blocks": jax.tree.map(lambda *leaves: np.stack(leaves), *blocks),
        }
        params[f"head_{name}"] = linear(state, f"nlp_head_{letter}")
    for i, j in networks.pairs if teacher else ():
        pair = "".join(LETTERS[networks.names[m]] for m in (i, j))
        theirs = f"cross_attn_{CROSS.get(pair, pair)}"
        params[networks.cross_name(i, j)] = _attention(state, theirs) | {
            "out": linear(state, f"{theirs}.proj")
        }
    return jax.tree.map(jnp.asarray, params)


def _attention(state: StateDict, name: str) -> Params:
    theirs = {"query": "q", "key": "k", "value": "v", "mlp0": "mlp.fc1", "mlp1": "mlp.fc2"}
    return {ours: linear(state, f"{name}.{tensor}") for ours, tensor in theirs.items()}


# ---- the curriculum ----


def compare_retrieval(meta, arrays) -> Iterator[Difference]:
    """The rows that are found, cut and kept under every pattern, by brute force."""
    k = meta["k"]
    letters = [name.removeprefix("input/db_") for name in arrays if name.startswith("input/db_")]
    letters.sort(key="avt".index)  # the order in which the released code joins what it finds
    databases = {x: arrays[f"input/db_{x}"].astype(np.float64) for x in letters}
    if meta["metric"] == "cosine":  # of text alone; equal to L2 of normalised vectors
        databases["t"] /= np.linalg.norm(databases["t"], axis=1, keepdims=True)
    apart = {x: np.linalg.norm(d[:, None] - d[None], axis=-1) for x, d in databases.items()}
    queries = arrays["input/query_rows"]
    nearest = jnp.stack(
        [jnp.asarray(np.argsort(apart[x][queries], kind="stable")[:, : k + 1]) for x in letters],
        axis=1,
    )
    hardness = jnp.asarray(arrays["input/hardness"])
    mean = jnp.asarray(np.mean(list(apart.values()), axis=0))
    patterns = sorted({n.split("/")[1] for n in arrays if n.startswith("output/")})
    for pattern in patterns:
        available = jnp.tile(jnp.array([x in pattern for x in letters]), (len(queries), 1))
        found = curriculum.union(nearest, available)
        chosen = curriculum.cut(found, hardness, k)
        kept = curriculum.closest(chosen, mean[found[:, :1], chosen], k)
        for name, ours in (("integrated", found), ("filtered", chosen), ("kept", kept)):
            reference = arrays[f"output/{pattern}/{name}"]
            yield difference(f"output/{pattern}/{name}", *_same_width(ours, reference))
        whole = curriculum.line_up(kept, k)
        key = f"output/{pattern}/retrieved_audio"
        yield difference(key, arrays["input/db_a"][np.asarray(whole)], arrays[key])


def _same_width(ours, reference) -> tuple[np.ndarray, np.ndarray]:
    """Lists of rows, filled up with -1 to one length."""
    width = max(ours.shape[1], reference.shape[1])
    return tuple(  # type: ignore[return-value]
        np.pad(np.asarray(x), [(0, 0), (0, width - x.shape[1])], constant_values=-1)
        for x in (ours, reference)
    )

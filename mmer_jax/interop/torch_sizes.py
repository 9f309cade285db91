"""What a checkpoint of the originals says about its model: sizes by its tensors, the rest by its
options. Both may name a size; they must then agree."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from mmer_jax.errors import UserError
from mmer_jax.interop.state_files import Arrays
from mmer_jax.interop.torch_folder import Checkpoint
from mmer_jax.interop.torch_layout import LETTERS, cascade_size, linear_numbers

DEFAULT_KINDS = {"audio": "lstm", "text": "textcnn", "visual": "lstm"}


class Sizes(NamedTuple):
    """Of one checkpoint."""

    dims: dict[str, int]  # of the features, by modality
    n_classes: int
    config: dict[str, object]  # dotted keys of our configuration and their values


def infer(checkpoint: Checkpoint, stage: str) -> Sizes:
    """Sizes of a checkpoint of `stage`; what a missing tensor would tell is left out or guessed.

    Raises:
      UserError: options contradict the tensors, or describe a model that we do not have.
    """
    networks, options = checkpoint.networks, checkpoint.options
    states = {m: networks.get(letter, {}) for m, letter in LETTERS.items()}
    kinds = {m: _kind(state) or DEFAULT_KINDS[m] for m, state in states.items()}
    embeddings = {m: _embedding(state) for m, state in states.items()}
    dims = {m: _input_dim(state) for m, state in states.items()}
    head, cascade = networks.get("C", {}), networks.get("AE", {})
    n_classes = _out_size(head, "fc_out")
    layers = tuple(_out_size(head, f"module.{k}") for k in linear_numbers(head))
    config: dict[str, object] = {
        "model.embedding": _most_common(embeddings.values()),
        "model.classifier": layers,
        "model.encoders": () if kinds == DEFAULT_KINDS else tuple(kinds.values()),
        "model.pooling": _pooling(checkpoint, kinds),
        f"stages.{stage}.dropout": _dropout(checkpoint),
    }
    fc = [state for m, state in states.items() if kinds[m] == "fc" and state]
    if fc and not any(has_dropout(state) for state in fc):
        config[f"stages.{stage}.encoder_dropout"] = 0.0
    if cascade:
        blocks, depth = cascade_size(cascade)
        config["model.blocks"] = blocks
        config["model.cascade"] = tuple(
            _most_common(_out_size(cascade, f"encoder_{n}.{2 * i}") for n in range(blocks))
            for i in range(depth)
        )
    if stage == "mmin" and cascade and "AE_cycle" not in networks:
        config["model.backward_cascade"] = "shared" if options.get("share_weight") else "none"
    _compare(checkpoint, config, dims, embeddings, n_classes)
    known = {k: v for k, v in config.items() if v not in (None, 0, ()) or k not in _MAY_BE_UNKNOWN}
    return Sizes({m: dim or 1 for m, dim in dims.items()}, n_classes, known)


_MAY_BE_UNKNOWN = ("model.embedding", "model.classifier", "model.cascade", "model.blocks")


def has_dropout(state: Arrays) -> bool:
    """Whether Linear layers stand at 0, 3, ... and not at 0, 2, ...: dropout layers count."""
    numbers = linear_numbers(state)
    return len(numbers) > 1 and numbers[1] - numbers[0] == 3


def _kind(state: Arrays) -> str | None:
    for prefix, kind in (("rnn.", "lstm"), ("conv", "textcnn"), ("module.", "fc")):
        if any(name.startswith(prefix) for name in state):
            return kind
    return None


def _embedding(state: Arrays) -> int:
    if _kind(state) == "lstm":
        biases = [
            state[n].shape[0] // 4 for n in ("rnn.bias_ih_l0", "rnn.bias_hh_l0") if n in state
        ]
        return _most_common(biases)
    numbers = linear_numbers(state)
    return _out_size(state, f"module.{numbers[-1]}" if numbers else "embd.0")


def _input_dim(state: Arrays) -> int:
    names = ("rnn.weight_ih_l0", "conv1.weight", "conv2.weight", "conv3.weight", "module.0.weight")
    return _most_common(state[n].shape[-1] for n in names if n in state and state[n].ndim > 1)


def _out_size(state: Arrays, name: str) -> int:
    """Of a Linear layer, by its bias or else its weight; 0 if it has neither."""
    sizes = [state[f"{name}.{p}"].shape for p in ("bias", "weight") if f"{name}.{p}" in state]
    return sizes[0][0] if sizes and sizes[0] else 0


def _most_common(values: Iterable[int]) -> int:
    counted = Counter(value for value in values if value)
    return counted.most_common(1)[0][0] if counted else 0


def _pooling(checkpoint: Checkpoint, kinds: dict[str, str]) -> str:
    """Of the LSTMs; by default maxpool, as released."""
    methods = {
        checkpoint.options.get(f"embd_method_{m[0]}", "maxpool")
        for m in ("audio", "visual")
        if kinds[m] == "lstm"
    } or {"maxpool"}
    attention = any("attention_vector_weight" in s for s in checkpoint.networks.values())
    if attention or "attention" in methods:
        raise UserError(
            f"{checkpoint.source} pools by attention, which is not imported: the released softmax "
            "runs over an axis of one element, so that it adds up all steps unweighted"
        )
    if len(methods) > 1 or not methods <= {"maxpool", "last"}:
        raise UserError(
            f"{checkpoint.source}: embd_method_a and embd_method_v are {sorted(methods)}; expected "
            "maxpool or last, the same for both"
        )
    return str(methods.pop())


def _dropout(checkpoint: Checkpoint) -> float:
    """The classifier's rate; without options 0.5 where there are dropout layers."""
    head, rate = checkpoint.networks.get("C", {}), checkpoint.options.get("dropout_rate")
    numbers = linear_numbers(head)
    if rate is None or len(numbers) < 2:
        return float(rate or 0) if len(numbers) < 2 else 0.5 * has_dropout(head)
    if (float(rate) > 0) != has_dropout(head):
        raise UserError(
            f"{checkpoint.source}: options have dropout_rate {rate}, but Linear layers of C stand "
            f"at {numbers}: with dropout at 0, 3, ..., without at 0, 2, ..."
        )
    return float(rate)


def _compare(checkpoint: Checkpoint, config, dims, embeddings, n_classes: int) -> None:
    """Refuse options that contradict the tensors."""
    ours: dict[str, Any] = {
        "AE_layers": config.get("model.cascade"),
        "n_blocks": config.get("model.blocks"),
        "cls_layers": config["model.classifier"],
        "output_dim": n_classes,
    }
    for letter, modality in (("a", "audio"), ("v", "visual"), ("l", "text")):
        ours[f"input_dim_{letter}"] = dims[modality]
        ours[f"embd_size_{letter}"] = embeddings[modality]
    different = []
    for key, mine in ours.items():
        if mine and key in checkpoint.options:
            theirs = checkpoint.options[key]
            if _numbers(theirs) != _numbers(mine):
                different.append(f"{key} is {theirs} in the options, {mine} by the tensors")
    if different:
        raise UserError(
            f"{checkpoint.source}: {'; '.join(different)}. Remove or correct train_opt.conf if it "
            "is another run's."
        )


def _numbers(value) -> list[str]:
    text = str(value).strip("()[] ")
    return [part.strip() for part in text.split(",") if part.strip()]

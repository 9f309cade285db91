"""python -m mmer_jax.export --workdir=W --out=model.mmer

Writes the ensemble of a workdir to one file that runs without this package: a zip archive of

    program.bin   the prediction as StableHLO (`jax.export`), for CPU, CUDA and TPU
    weights.npz   its first argument: parameters and normalisation of all members
    model.json    what it takes and gives: `modalities`, `classes` (or `tasks`), `members`

To run it takes jax, numpy and flatbuffers (by which jax reads programs): README, "Export".
"""

import functools
import io
import json
import re
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.export  # not part of `import jax`
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mmer_jax import cli
from mmer_jax.data.corpus import Modality, Task
from mmer_jax.ensemble import ensemble_outputs
from mmer_jax.nn.encoders import WIDTHS
from mmer_jax.predict import add_ensemble_flags
from mmer_jax.predictor import Predictor, load

PLATFORMS = ("cpu", "cuda", "tpu")


def write(model: Predictor, path: str | Path) -> None:
    """Write the ensemble of `model` to the file `path`.

    The program is `call(weights, features, lengths, present) -> (outputs [b, C], members
    [E, b, C])` with any batch size b. `features` maps modalities to float32 [b, D], or [b, t, D]
    with any number of steps t ≥ 5 of its own; `lengths` maps sequences to int32 [b] ≥ 1;
    `present` is bool [b, M]. Features are those of the feature files, normalisation is inside;
    what stands where `present` is False or beyond a length never counts. Outputs are those of
    `ensemble.ensemble_outputs`. Where the method reads dialogues or the turns before, the b
    utterances are the turns of one dialogue, in order. One that reads who speaks takes `speakers`
    as well, int32 [b]: any number for each voice, of at most as many voices as in training.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(model.trained.weights)
    weights = {"/".join(part.key for part in place): np.asarray(leaf) for place, leaf in leaves}

    def program(weights, features, lengths, present, *speakers):
        nested = jax.tree_util.tree_unflatten(structure, list(weights[name] for name in names))
        return _one_dialogue(model, nested, features, lengths, present, *speakers)

    names = list(weights)
    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in weights.items()}
    exported = jax.export.export(jax.jit(program), platforms=PLATFORMS)(shapes, *_inputs(model))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("model.json", json.dumps(_described(model), indent=1))
        archive.writestr("program.bin", bytes(exported.serialize()))
        stored = io.BytesIO()
        np.savez(stored, **weights)  # type: ignore[arg-type]
        archive.writestr("weights.npz", stored.getvalue())
    cli.write_out(Path(path), content.getvalue())


def _one_dialogue(model: Predictor, weights, features, lengths, present, speakers=None):
    """Outputs of b utterances, [b, C] and [E, b, C]; of a dialogue's turns where it is read."""
    stage, count = model.trained.stage, present.shape[0]
    outputs_of = functools.partial(ensemble_outputs, stage, model.trained.spec, weights)
    if stage.unit != "history":
        turns = jnp.ones((1, count) if stage.unit == "dialogue" else (count, 1), bool)
        return outputs_of(features, lengths, present, turns)
    length = stage.history + 1
    rows = jnp.arange(count)[:, None] + jnp.arange(length)[None] - stage.history
    inputs = features, lengths, present, first_spoken(speakers)
    features, lengths, present, speakers = jax.tree.map(
        lambda x: x[jnp.maximum(rows.reshape(-1), 0)], inputs
    )
    outputs = outputs_of(features, lengths, present, rows >= 0, speakers)
    return tuple(x.reshape(*x.shape[:-2], count, length, x.shape[-1])[..., -1, :] for x in outputs)


def first_spoken(speakers: Int[Array, " b"]) -> Int[Array, " b"]:
    """Numbers of a dialogue's speakers as they first speak, as data/speakers.py gives them."""
    alike = speakers[:, None] == speakers[None]
    first = jnp.argmax(alike, axis=1)
    return (jnp.cumsum(first == jnp.arange(speakers.shape[0])) - 1)[first]


def _inputs(model: Predictor):
    """What the program takes beside weights, as shapes.

    Batch size and numbers of steps are open.
    """
    scope = jax.export.SymbolicScope(
        [
            f"t{i} >= {_least_steps(model)}"
            for i, m in enumerate(model.modalities)
            if f"t{i}" in _dimensions(model, i, m).split(", ")
        ]
    )

    def shape(dimensions: str, dtype) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(jax.export.symbolic_shape(dimensions, scope=scope), dtype)

    features, lengths = {}, {}
    for i, m in enumerate(model.modalities):
        features[m.name] = shape(_dimensions(model, i, m), jnp.float32)
        if m.is_sequence:
            lengths[m.name] = shape("b", jnp.int32)
    present = shape(f"b, {len(model.modalities)}", jnp.bool_)
    speakers = [shape("b", jnp.int32)] if model.reads_speakers else []
    return features, lengths, present, *speakers


def _least_steps(model: Predictor) -> int:
    """A shorter sequence would need padding inside, by an unknown number."""
    paths = jax.tree_util.tree_leaves_with_path(model.trained.weights["params"])
    kernels = (re.fullmatch(r"conv(\d+)_kernel", place[-1].key) for place, _ in paths)
    return max((int(found[1]) for found in kernels if found), default=max(WIDTHS))


def _dimensions(model: Predictor, i: int, m: Modality) -> str:
    """'b, t0, 64': open where a number of any size may stand."""
    if not m.is_sequence:
        return f"b, {m.dim}"
    # Where padding counts, it must be as much as in training.
    return f"b, t{i}, {m.dim}" if model.trained.pad_masking else f"b, {m.max_steps}, {m.dim}"


def _described(model: Predictor) -> dict[str, object]:
    return {
        "modalities": [
            {
                "name": m.name,
                "shape": _dimensions(model, i, m).split(", "),
                "sequence": m.is_sequence,
                "longest_in_training": m.max_steps,
            }
            for i, m in enumerate(model.modalities)
        ],
        **_outputs(model.tasks),
        "unit": model.trained.stage.unit,
        **_history(model),
        "members": [member._asdict() for member in model.members],
        "platforms": list(PLATFORMS),
        "jax": jax.__version__,
    }


def _history(model: Predictor) -> dict[str, int]:
    """How many turns before are read, and of how many voices at most."""
    if not model.reads_speakers:
        return {}
    return {"history": model.trained.stage.history, "speakers": model.trained.spec.n_speakers}


def _outputs(tasks: Sequence[Task]) -> dict[str, object]:
    """What the columns of the outputs are; of several tasks they stand side by side."""
    if len(tasks) > 1:
        return {
            "tasks": {task.name: list(task.classes) for task in tasks},
            "outputs": "probabilities",
        }
    classes = list(tasks[0].classes)
    return {"classes": classes, "outputs": "probabilities" if classes else "values"}


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = cli.Parser(
        prog="python -m mmer_jax.export",
        description="Write the models of a workdir to one file that runs without mmer_jax.",
    )
    add_ensemble_flags(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="model.mmer")
    given = parser.parse_args(arguments)

    def command() -> None:
        model = load(given.workdir, folds=given.folds, seeds=given.seeds)
        out = given.out.expanduser()
        write(model, out)
        size = out.stat().st_size / 2**20
        print(f"ensemble of {len(model.members)} model(s), {size:.1f} MiB: {out}")

    return cli.exit_status(command)


if __name__ == "__main__":
    sys.exit(main())

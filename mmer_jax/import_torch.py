"""python -m mmer_jax.import_torch --model=ifmmin --from=DIR_OR_FILE --workdir=W: checkpoints in.

Makes a workdir of the originals' checkpoints (PyTorch). `python -m mmer_jax.main` evaluates it by
the command that is printed at the end, and --config.train.init_from=W starts training from it.
.safetensors and .npz need no PyTorch; from .pth plain tensors are read and nothing is unpickled.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from mmer_jax import cli
from mmer_jax import config as config_lib
from mmer_jax import workdir as workdir_lib
from mmer_jax.checkpoint import GroupCheckpoints
from mmer_jax.data.corpus import CorpusSpec, Modality, Task
from mmer_jax.errors import UserError
from mmer_jax.interop import torch_folder, torch_sizes
from mmer_jax.interop.torch_folder import Checkpoint, Networks
from mmer_jax.interop.torch_layout import LETTERS, from_torch, letter, tensors_of, to_torch
from mmer_jax.methods import make_stages
from mmer_jax.methods.stage import Params
from mmer_jax.sweep import single_point
from mmer_jax.trials import Group, Trial

TEACHERS = {"mmin": "utt_fusion", "ifmmin": "utt_shared"}
MODELS = ("ifmmin", "mmin", "utt_fusion", "utt_shared")


def import_checkpoints(args: argparse.Namespace) -> list[str]:
    """Write the workdir; returns the overrides by which main finds its trials.

    Raises:
      UserError: files cannot be read; options contradict the tensors; tensors are missing, extra or
        misshapen (all in one message); the workdir is in use.
    """
    checkpoints = torch_folder.find(args.source, args.epoch, args.fold)
    teachers = _teachers(args, checkpoints)
    sizes = torch_sizes.infer(checkpoints[0], args.model)
    config, overrides = _config(args, sizes, teachers)
    spec = _spec(args, config, sizes)
    stages = _shapes(config, spec)
    problems: list[str] = []
    params: list[dict[str, Params]] = []
    for i, checkpoint in enumerate(checkpoints):
        parts = {args.model: checkpoint}
        if teachers:
            parts = {TEACHERS[args.model]: teachers[i], **parts}
        params.append(
            {name: _parameters(name, stages[name], c, problems) for name, c in parts.items()}
        )
    if problems:
        raise UserError(
            f"{args.source} does not hold a model '{args.model}' of these sizes:\n  "
            + "\n  ".join(problems)
        )
    _write(args.workdir, config, spec, checkpoints, params)
    folds = [checkpoint.fold for checkpoint in checkpoints]
    return [*overrides, _flag("config.trials.folds", folds)]


def _teachers(args, checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """The teacher of each checkpoint; [] if there is none or none is known."""
    place = args.teacher
    if place is None:
        named = Path(str(checkpoints[0].options.get("pretrained_path") or ""))
        place = named if named.name and named.exists() and args.model in TEACHERS else None
    if place is None:
        return []
    if args.model not in TEACHERS:
        raise UserError(f"model '{args.model}' has no teacher; leave --teacher out")
    found = torch_folder.find(place, args.teacher_epoch)
    if len(found) == len(checkpoints) == 1:
        return found
    by_fold = {teacher.fold: teacher for teacher in found}
    lacking = [c.fold + 1 for c in checkpoints if c.fold not in by_fold]
    if lacking:
        raise UserError(
            f"teacher {place} has no folder for the folds {lacking}; it has "
            f"{[fold + 1 for fold in by_fold]}"
        )
    return [by_fold[c.fold] for c in checkpoints]


def _config(args, sizes, teachers: Sequence[Checkpoint]) -> tuple[ConfigDict, list[str]]:
    """The configuration of the originals' behaviour, and how it differs from the file's."""
    file = args.config or f"configs/{args.model}.py"
    config = cli.load_config(file)
    if config.method != args.model:
        raise UserError(f"{file} is of method '{config.method}'; expected '{args.model}'")
    before = config_lib.flat(config)
    values = {
        **sizes.config,
        "data.modalities": tuple(LETTERS),
        "data.classes": tuple(args.classes.split(",")),
        "data.normalize": "audio",
        "data.clip_std": 0.0,
        "quirks.pad_masking": args.pad_masking,
        "trials.seeds": 1,
    }
    if teachers:
        name = TEACHERS[args.model]
        own = torch_sizes.infer(teachers[0], name).config
        values |= {key: value for key, value in own.items() if key.startswith("stages.")}
    for key, value in values.items():
        config_lib.assign(config, key, value)
    config_lib.check_values(config)
    after = config_lib.flat(config)
    changed = [key for key in values if after[key] != before[key]]
    return config, [f"--config={file}", *(_flag(f"config.{key}", values[key]) for key in changed)]


def _spec(args, config, sizes) -> CorpusSpec:
    classes = tuple(config.data.classes)
    if sizes.n_classes and len(classes) != sizes.n_classes:
        raise UserError(
            f"{args.source} has {sizes.n_classes} outputs, but there are {len(classes)} classes: "
            f"{', '.join(classes)}; name them in the originals' order by --classes=NAME,NAME,..."
        )
    try:
        steps = dict(zip(LETTERS, (int(n) for n in args.max_steps.split(",")), strict=True))
    except ValueError:
        raise UserError(
            f"--max_steps is '{args.max_steps}'; expected three numbers, for {', '.join(LETTERS)}"
        ) from None
    kinds = dict(zip(LETTERS, config.model.encoders or ("",) * len(LETTERS), strict=True))
    modalities = (
        Modality(name, dim, 0 if kinds[name] == "fc" else steps[name])
        for name, dim in sizes.dims.items()
    )
    return CorpusSpec(tuple(modalities), (Task(config.data.label, classes),))


def _shapes(config, spec: CorpusSpec) -> dict[str, Params]:
    """Shapes of every stage's parameters."""
    earlier: dict[str, Params] = {}
    for stage in make_stages(config, spec):
        earlier[stage.name] = jax.eval_shape(stage.init, jax.random.key(0), earlier)
    return earlier


def _parameters(
    stage: str, expected: Params, checkpoint: Checkpoint, problems: list[str]
) -> Params:
    """The parameters of a stage; what is wrong with the tensors is added to `problems`."""
    networks: Networks = checkpoint.networks
    ours = {str(letter(name, stage)): name for name in expected}
    where = f"{checkpoint.source} epoch {checkpoint.epoch}"
    problems += [f"{where}: network {name} is missing" for name in ours if name not in networks]
    problems += [f"{where}: network {name} is extra" for name in networks if name not in ours]
    params: Params = {}
    for name in ours.keys() & networks.keys():
        state = networks[name]
        like = expected[ours[name]]
        tensors = tensors_of(like, dropout=torch_sizes.has_dropout(state))
        zeros = jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), like)
        shapes = {tensor: x.shape for tensor, x in to_torch(tensors, zeros).items()}
        wrong = [f"{tensor} is missing" for tensor in shapes if tensor not in state]
        wrong += [f"{tensor} is extra" for tensor in state if tensor not in shapes]
        wrong += [
            f"{tensor} has shape {state[tensor].shape}, expected {shape}"
            for tensor, shape in shapes.items()
            if tensor in state and state[tensor].shape != shape
        ]
        problems += [f"{where}: {name}: {problem}" for problem in wrong]
        if not wrong:
            params[ours[name]] = from_torch(tensors, state)
    return params


def _write(
    workdir: Path,
    config: ConfigDict,
    spec: CorpusSpec,
    checkpoints: Sequence[Checkpoint],
    params: Sequence[dict[str, Params]],
) -> None:
    """config.json and the final checkpoint of one group of trials, as training leaves them."""
    point = single_point(config)[0]
    trials = tuple(Trial(point, checkpoint.fold, 0) for checkpoint in checkpoints)
    group = Group(trials, len(trials))
    with workdir_lib.locked(workdir):
        if any((workdir / name).exists() for name in ("config.json", "checkpoints")):
            raise UserError(f"workdir {workdir} is not empty; choose another --workdir")
        store = GroupCheckpoints(workdir, group.name, [trial.key for trial in trials])
        store.save_final(
            jax.tree.map(lambda *leaves: np.stack(leaves), *params),
            np.full(len(trials), np.nan),  # no validation score is known
            np.array([_epoch_index(checkpoint.epoch) for checkpoint in checkpoints]),
        )
        workdir_lib.record_imported(workdir, config, spec)


def _epoch_index(epoch: str) -> int:
    """0-based; -1 for an epoch without a number."""
    return int(epoch) - 1 if epoch.isdecimal() else -1


def _flag(name: str, value) -> str:
    text = str(value)
    return f"--{name}=" + (f'"{text}"' if "'" in text and '"' not in text else shlex.quote(text))


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m mmer_jax.import_torch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, choices=MODELS)
    parser.add_argument("--from", dest="source", required=True, type=Path, help="folder or file")
    parser.add_argument("--workdir", required=True, type=Path, help="is made")
    parser.add_argument("--teacher", type=Path, help="folder or file of mmin's or ifmmin's teacher")
    parser.add_argument("--config", default="", help="default: configs/MODEL.py")
    parser.add_argument("--epoch", default="", help="default: best, or the only one")
    parser.add_argument("--teacher_epoch", default="")
    parser.add_argument("--fold", type=int, help="0-based; default: the folder's number less one")
    parser.add_argument("--classes", default="angry,happy,neutral,sad", help="in output order")
    parser.add_argument("--max_steps", default="60,22,50", help="of audio, text, visual sequences")
    parser.add_argument(
        "--pad_masking", action="store_true", help="ignore padding, unlike the originals"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)

    def command() -> None:
        file, *overrides = import_checkpoints(args)
        workdir = _flag("workdir", args.workdir)
        print(f"imported into {args.workdir}; evaluate with:")
        parts = ["python -m mmer_jax.main", file, workdir, "--config.data.root=FEATURE_DIR"]
        print(" \\\n  ".join([*parts, *overrides]))

    return cli.exit_status(command)


if __name__ == "__main__":
    sys.exit(main())

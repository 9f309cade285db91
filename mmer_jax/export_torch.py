"""python -m mmer_jax.export_torch --workdir=W --out=DIR: weights as the originals load them.

For each trial a fold's folder 1, 2, ... with `{epoch}_net_{A,V,L,C,...}.pth`, plain tensors by the
originals' names, and train_opt.conf beside it. The teacher stage goes to DIR/<its name>.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmer_jax import cli
from mmer_jax import workdir as workdir_lib
from mmer_jax.checkpoint import Finished, load_final, usable_trials
from mmer_jax.config import from_flat
from mmer_jax.errors import UserError
from mmer_jax.import_torch import MODELS, TEACHERS
from mmer_jax.interop import state_files
from mmer_jax.interop.torch_folder import OPTIONS
from mmer_jax.interop.torch_layout import LETTERS, letter, tensors_of, to_torch
from mmer_jax.trials import parse_key


def export(workdir: Path, out: Path, suffix: str, point: str | None = None) -> list[Path]:
    """Write every finished trial; returns the fold folders.

    Args:
      workdir: of a finished run or an import.
      out: where NAME/1, NAME/2, ... go; several seeds get folders seed0, seed1, ... of their own.
      suffix: one of `state_files.SUFFIXES`.
      point: of a sweep, its overrides as JSON.

    Raises:
      UserError: the workdir holds a model that the originals do not have.
    """
    values, spec = workdir_lib.read_run(workdir)
    method = str(values["method"])
    if method not in MODELS:
        raise UserError(f"method '{method}' has no original to export to; those are: {MODELS}")
    if len(spec.tasks) > 1:
        names = ", ".join(task.name for task in spec.tasks)
        raise UserError(f"{workdir} has the tasks {names}; the originals have one")
    strange = sorted(set(spec.names) - set(LETTERS))
    if strange or len(spec.names) < len(LETTERS):
        raise UserError(
            f"{workdir} has the modalities {', '.join(spec.names)}; the originals have exactly "
            f"{', '.join(LETTERS)} (networks {', '.join(LETTERS.values())})"
        )
    if spec.names != tuple(LETTERS):
        raise UserError(
            f"{workdir} has its modalities in the order {', '.join(spec.names)}; the originals "
            f"concatenate {', '.join(LETTERS)}, so that their networks cannot read these weights"
        )
    trials = _trials(workdir, point)
    config = from_flat({**values, **parse_key(next(iter(trials)))[0]})
    if config.model.pooling == "attention":
        raise UserError("attention pooling differs from the released one, which cannot be exported")
    seeds = {parse_key(key)[2] for key in trials}
    groups = {name: load_final(workdir, name) for name in {e.group for e in trials.values()}}
    folders = []
    for key, entry in trials.items():
        _, fold, seed = parse_key(key)
        stored = groups[entry.group]
        places = {stage: out if stage == method else out / stage for stage in stored}
        if len(seeds) > 1:
            places = {stage: place / f"seed{seed}" for stage, place in places.items()}
        for stage, params in stored.items():
            mine = jax.tree.map(lambda x, i=entry.position: np.asarray(x)[i], params)
            is_last = stage == method and entry.best_epoch >= 0
            epoch = str(entry.best_epoch + 1) if is_last else "best"
            folder = places[stage] / str(fold + 1)
            _write_networks(folder, epoch, suffix, stage, mine, config.stages[stage])
            options = _options(config, spec, stage, mine)
            if TEACHERS.get(stage) in stored:
                options["pretrained_path"] = str(places[TEACHERS[stage]].resolve())
            text = json.dumps(options, indent=4) + "\n"
            (places[stage] / OPTIONS).write_text(text, encoding="utf-8")
            folders += [folder] if stage == method else []
    return folders


def _trials(workdir: Path, point: str | None) -> dict[str, Finished]:
    """The finished trials of one point."""
    done = usable_trials(workdir)
    points = {key: json.dumps(parse_key(key)[0], sort_keys=True) for key in done}
    known = sorted(set(points.values()))
    try:
        wanted = json.dumps(json.loads(point), sort_keys=True) if point else known[0]
    except (ValueError, IndexError):
        wanted = ""
    if wanted not in known or (point is None and len(known) > 1):
        raise UserError(
            f"{workdir} has finished trials of {len(known)} points; choose one by --point: "
            f"{'; '.join(known)}"
        )
    return {key: entry for key, entry in done.items() if points[key] == wanted}


def _write_networks(folder: Path, epoch: str, suffix: str, stage: str, params, settings) -> None:
    for network, values in params.items():
        name = letter(network, stage)
        rate = settings.encoder_dropout if network.startswith("encoder_") else settings.dropout
        state = to_torch(tensors_of(values, dropout=rate > 0), values)
        state_files.write(folder / f"{epoch}_net_{name}{suffix}", state)


def _options(config, spec, stage: str, params) -> dict[str, Any]:
    """What the originals' option dump says of the model."""
    options: dict[str, Any] = {
        "model": stage,
        "output_dim": spec.n_outputs,
        "cls_layers": _joined(config.model.classifier),
        "dropout_rate": config.stages[stage].dropout,
    }
    for m in spec.modalities:
        key = "l" if m.name == "text" else m.name[0]
        options[f"input_dim_{key}"] = m.dim
        options[f"embd_size_{key}"] = config.model.embedding
        if m.name != "text":
            options[f"embd_method_{key}"] = config.model.pooling
    if "cascade" in params:
        options["AE_layers"] = _joined(config.model.cascade)
        options["n_blocks"] = config.model.blocks
        options["share_weight"] = config.model.get("backward_cascade", "own") == "shared"
    return options


def _joined(sizes) -> str:
    return ",".join(str(size) for size in sizes)


def main(argv: list[str] | None = None) -> int:
    parser = cli.Parser(
        prog="python -m mmer_jax.export_torch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    formats = [suffix[1:] for suffix in state_files.SUFFIXES]
    parser.add_argument("--format", default="pth", choices=formats)
    parser.add_argument("--point", help="of a sweep, its overrides as JSON")
    args = parser.parse_args(argv)

    def command() -> None:
        folders = export(args.workdir, args.out, f".{args.format}", args.point)
        print(f"{len(folders)} trials exported to {args.out}")

    return cli.exit_status(command)


if __name__ == "__main__":
    sys.exit(main())

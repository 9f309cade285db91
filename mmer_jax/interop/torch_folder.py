"""The folders in which the originals leave their checkpoints.

    NAME/train_opt.conf               options as JSON, or as printed; may stand in the fold's folder
    NAME/1 ... NAME/10                a folder per fold, or one of them alone
    NAME/1/{epoch}_net_{A,V,...}.pth  a file per network; .safetensors and .npz are read as well

Or one archive, .safetensors or .npz, with names such as `A/rnn.weight_ih_l0`.
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from mmer_jax.errors import UserError, shorten
from mmer_jax.interop import state_files
from mmer_jax.interop.torch_layout import ALL

OPTIONS = "train_opt.conf"
KNOWN = re.compile(
    r"(rnn\.|conv\d\.|embd\.|module\.\d+\.|fc_out\.|netshared\.|(en|de)coder_\d+\.|transition\."
    r"|attention_)"
)

Networks = dict[str, state_files.Arrays]


class Checkpoint(NamedTuple):
    """One trained model of the originals."""

    source: Path
    fold: int  # 0-based
    epoch: str
    networks: Networks
    options: dict[str, Any]


def find(path: Path, epoch: str = "", fold: int | None = None) -> list[Checkpoint]:
    """The checkpoints that a path leads to, in the order of folds.

    Args:
      path: of an archive, a fold's folder, or a folder of folders 1, 2, ...
      epoch: which to take; by default `best` or, without it, the only one there is.
      fold: 0-based, of a path that holds one; by default its folder's number less one, or 0.

    Raises:
      UserError: nothing is there, or several epochs are and none was named.
    """
    if path.is_file():
        networks = state_files.by_network(path, state_files.read(path))
        return [_checkpoint(path, path.parent, fold or 0, epoch or "?", networks)]
    if not path.is_dir():
        raise UserError(f"{path} does not exist; expected a file or folder of checkpoints")
    folds = sorted(int(p.name) for p in path.iterdir() if p.is_dir() and p.name.isdecimal())
    if not folds:
        if fold is None:
            fold = int(path.name) - 1 if path.name.isdecimal() and int(path.name) else 0
        return [_read_fold(path, fold, epoch)]
    if folds[0] < 1:
        raise UserError(f"{path} has a folder 0; the originals' folds are 1, 2, ...")
    if fold is not None:
        if fold + 1 not in folds:
            raise UserError(f"{path} has no folder {fold + 1} for fold {fold}; it has {folds}")
        folds = [fold + 1]
    return [_read_fold(path / str(number), number - 1, epoch) for number in folds]


def _read_fold(path: Path, fold: int, epoch: str) -> Checkpoint:
    files: dict[str, dict[str, Path]] = {}
    for file in sorted(path.iterdir()):
        named = re.fullmatch(r"(.+?)_net_(.+)", file.stem)
        if named and file.suffix in state_files.SUFFIXES:
            of_epoch = files.setdefault(named[1], {})
            if named[2] in of_epoch:
                raise UserError(
                    f"{file} and {of_epoch[named[2]].name} hold the same network; keep one"
                )
            of_epoch[named[2]] = file
    if not files:
        raise UserError(f"{path} has no file such as 20_net_A.pth; it is no fold's folder")
    chosen = epoch or ("best" if "best" in files else next(iter(files)))
    if chosen not in files or (not epoch and chosen != "best" and len(files) > 1):
        problem = f"no epoch '{epoch}'" if epoch else "several epochs"
        raise UserError(f"{path} has {problem}; choose by --epoch one of: {', '.join(files)}")
    unknown = sorted(set(files[chosen]) - set(ALL))
    if unknown:
        raise UserError(
            f"{path} has networks of no model that is imported: {shorten(unknown)}; known are "
            f"{', '.join(ALL)}"
        )
    networks = {name: state_files.read(file) for name, file in files[chosen].items()}
    return _checkpoint(path, path, fold, chosen, networks)


def _checkpoint(source: Path, folder: Path, fold: int, epoch: str, networks: Networks):
    options = next((p for p in (folder / OPTIONS, folder.parent / OPTIONS) if p.exists()), None)
    plain = {name: without_parallel(state) for name, state in networks.items()}
    return Checkpoint(source, fold, epoch, plain, read_options(options) if options else {})


def without_parallel(state: state_files.Arrays) -> state_files.Arrays:
    """Tensor names without the `module.` that DataParallel puts first.

    Classifiers and FC encoders have tensors `module.0.weight` by themselves: the prefix goes only
    where every name has it and more names are known without it.
    """
    prefix = "module."
    if not state or not all(name.startswith(prefix) for name in state):
        return state
    stripped = {name[len(prefix) :]: x for name, x in state.items()}
    known = [sum(bool(KNOWN.match(name)) for name in names) for names in (state, stripped)]
    return stripped if known[1] > known[0] else state


def read_options(path: Path) -> dict[str, Any]:
    """The options of a training run: JSON, or lines `key: value  [default: ...]`; only data."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise UserError(f"{path} is damaged JSON: {error}") from None
    lines = re.findall(r"^\s*(\w+):[ \t]*(.*?)[ \t]*(?:\[default: .*\])?$", text, re.MULTILINE)
    if not lines:
        raise UserError(f"{path} has no line such as 'n_blocks: 5', and is no JSON")
    return {key: _value(text) for key, text in lines}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {"True": True, "False": False, "None": None}.get(text, text)

"""State dicts in files: .pth, .safetensors and .npz as plain tensors; nothing is unpickled.

PyTorch is needed for .pth alone.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmer_jax.data import arrays
from mmer_jax.errors import UserError, shorten
from mmer_jax.interop.torch_layout import ALL

SUFFIXES = (".pth", ".safetensors", ".npz")
CONVERT = "convert it to .safetensors or .npz where you trust it"

Arrays = dict[str, np.ndarray]


def read(path: Path) -> Arrays:
    """{name: float32 array} of a file.

    Raises:
      UserError: the file is damaged, of another format, holds something else than tensors of
        floating-point numbers, or is a .pth and PyTorch is not installed.
    """
    readers = {".pth": _read_pth, ".safetensors": _read_safetensors, ".npz": _read_npz}
    if path.suffix not in readers:
        raise UserError(f"{path} is none of: {', '.join(SUFFIXES)}")
    arrays = readers[path.suffix](path)
    strange = [name for name, x in arrays.items() if x.dtype.kind not in "fiu"]
    if strange:
        raise UserError(f"{path}: {shorten(strange)}: expected numbers")
    wrong = [name for name, x in arrays.items() if not np.isfinite(x).all()]
    if wrong:
        raise UserError(f"{path}: {shorten(wrong)} has a NaN or an infinity; the file is damaged")
    return {name: x.astype(np.float32) for name, x in arrays.items()}


def write(path: Path, state: Mapping[str, np.ndarray]) -> None:
    """`state` as plain tensors in the format that the suffix names."""
    arrays = {name: np.array(x, order="C") for name, x in state.items()}  # contiguous copies
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        from safetensors import numpy as safetensors

        safetensors.save_file(arrays, path)
    else:
        torch = _torch(path)
        torch.save({name: torch.from_numpy(x) for name, x in arrays.items()}, path)


def by_network(path: Path, arrays: Arrays) -> dict[str, Arrays]:
    """{'A': {'rnn.bias_ih_l0': ...}} from the names `A/rnn.bias_ih_l0` or `A.rnn.bias_ih_l0`."""
    found: dict[str, Arrays] = {}
    strange = []
    for name, array in arrays.items():
        separator = "/" if "/" in name else "."
        network, _, tensor = name.partition(separator)
        if network in ALL and tensor:
            found.setdefault(network, {})[tensor] = array
        else:
            strange.append(name)
    if strange:
        raise UserError(
            f"{path}: {shorten(strange)}: expected names such as 'A/rnn.weight_ih_l0', with one of "
            f"the networks {', '.join(ALL)} first"
        )
    return found


def _torch(path: Path):
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path.name} needs PyTorch, which is not installed (pip install torch); without it "
            "use .safetensors or .npz"
        ) from None
    return torch


def _read_pth(path: Path) -> Arrays:
    torch = _torch(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file makes PyTorch raise
        reason = str(error).strip().split("\n")[0][:200]
        raise UserError(
            f"{path} is not a file of plain tensors, and nothing else is loaded because a pickle "
            f"can run any code; {CONVERT} ({type(error).__name__}: {reason})"
        ) from None
    if not isinstance(loaded, Mapping):
        raise UserError(f"{path} holds a {type(loaded).__name__}; expected a dict of tensors")
    strange = [str(name) for name, x in loaded.items() if not isinstance(x, torch.Tensor)]
    if strange:
        raise UserError(f"{path}: {shorten(strange)}: expected tensors; {CONVERT}")
    return {str(name): x.detach().to(torch.float32).numpy() for name, x in loaded.items()}


def _read_safetensors(path: Path) -> Arrays:
    from safetensors import SafetensorError
    from safetensors import numpy as safetensors

    try:
        return safetensors.load_file(path)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a readable .safetensors file: {error}") from None


def _read_npz(path: Path) -> Arrays:
    try:
        return arrays.read_npz(path)
    except arrays.BadArray as error:
        raise UserError(f"{path} is not a .npz of plain arrays: it {error}") from None

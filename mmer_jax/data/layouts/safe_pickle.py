"""Pickles of builtin containers, text, numbers and numpy arrays, read without running anything.

The published label files are pickles, and unpickling runs whatever a pickle names. Here nothing is
imported or called: `pickletools` splits the bytes into instructions, and a small machine carries
out those that build plain data. Of the names that a pickle may mention (`KNOWN`) each is a branch
of `_Machine._call`; any other ends the reading. Lengths are held against what there is.
"""

import math
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax.data.paths import file_inside
from mmer_jax.errors import UserError

LARGEST = 32 * 2**20  # bytes; the published label files have a few MB

_NUMPY = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
_FROM_BUFFER = ("numpy.core.numeric", "numpy._core.numeric")
_BUILTINS = ("builtins", "__builtin__")
KNOWN = {
    **{(module, name): name for module in _BUILTINS for name in ("set", "frozenset", "bytes")},
    **{(module, name): name for module in _NUMPY for name in ("_reconstruct", "scalar")},
    **{(module, "_frombuffer"): "_frombuffer" for module in _FROM_BUFFER},
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("collections", "OrderedDict"): "dict",
    ("_codecs", "encode"): "encode",
}
KEYS = (str, bytes, int, float, bool, type(None))  # what hashes in constant time


class _Refused(Exception):
    """A pickle that is damaged or holds something else than plain data."""


class _Name:
    """A name of `KNOWN` that the pickle has mentioned."""

    __match_args__ = ("what",)

    def __init__(self, what: str):
        self.what = what


class _Unbuilt:
    """An array or dtype between its creation and the instruction that fills it."""

    def __init__(self, kind: str, code: str = ""):
        self.kind, self.code = kind, code
        self.value: Any = None


def read_pickle(root: Path, path: Path) -> Any:
    """The object in the file `path`, which lies in `root`; see `loads`."""
    size = file_inside(root, path).stat().st_size
    if size > LARGEST:
        raise UserError(f"{path} has {size} bytes, a label file at most {LARGEST}")
    return loads(path.read_bytes(), str(path))


def loads(data: bytes, source: str) -> Any:
    """The plain object that `data` describes.

    Raises:
      UserError: it is truncated or damaged, or names anything that is not in `KNOWN`.
    """
    machine = _Machine()
    try:
        for operation, argument, _ in pickletools.genops(data):
            machine.step(operation.name, argument)
        return machine.result
    except _Refused as error:
        raise UserError(f"{source}: {error}; nothing of it was run") from None
    except Exception as error:  # whatever bytes that are no pickle make the machine stumble over
        raise UserError(f"{source} is no pickle, or a damaged one: {_in_words(error)}") from None


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}".rstrip(": ")


class _Machine:
    """A stack, a memo, and the instructions of pickle protocols 0 to 5 that build plain data."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # what lay on the stack at each mark
        self.memo: dict[int, Any] = {}
        self.result: Any = None

    def step(self, name: str, argument: Any) -> None:
        """Carry out the instruction `name`."""
        stack = self.stack
        if name in _PUSHES:
            if isinstance(argument, int) and argument.bit_length() > 64:
                raise _Refused("it holds an integer of more than 64 bits")
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[int(argument)] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(_built(self.memo[int(argument)]))
        elif name == "MARK":
            self.below.append(stack)
            self.stack = []
        elif name in _FROM_MARK:
            items = self._since_mark()
            self.stack.append(_FROM_MARK[name](items))
        elif name in _TUPLES:
            count = _TUPLES[name]
            items = [stack.pop() for _ in range(count)]
            stack.append(tuple(items[::-1]))
        elif name in ("APPEND", "SETITEM"):
            items = [stack.pop() for _ in range(1 if name == "APPEND" else 2)][::-1]
            _extend(stack[-1], items)
        elif name in ("APPENDS", "SETITEMS", "ADDITEMS"):
            items = self._since_mark()
            _extend(self.stack[-1], items)
        elif name == "GLOBAL":
            stack.append(_known(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_known(module, attribute))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_call(function, arguments))
        elif name == "BUILD":
            state = stack.pop()
            stack[-1] = _fill(stack[-1], state)
        elif name == "STOP":
            self.result = _built(stack.pop())
            if stack or self.below or isinstance(self.result, (_Name, _Unbuilt)):
                raise _Refused("it ends with something left over")
        elif name not in ("PROTO", "FRAME"):
            raise _Refused(f"it uses the instruction {name}, which plain data do not need")

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items


_PUSHES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BYTEARRAY8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _extend(container: Any, items: list[Any]) -> None:
    if type(container) is list:
        container.extend(items)
    elif type(container) is dict:
        container.update(_pairs(items))
    elif type(container) is set:
        container.update(_hashable(items))
    else:
        raise _Refused(f"it adds items to a {type(container).__name__}")


def _pairs(items: list[Any]) -> dict:
    if len(items) % 2:
        raise _Refused("it has a key without a value")
    return dict(zip(_hashable(items[::2]), items[1::2], strict=True))


def _hashable(items: Any) -> list[Any]:
    """Keys; not tuples, which may be nested so that hashing them never ends."""
    for item in items:
        if type(item) not in KEYS:
            raise _Refused(f"it has a {type(item).__name__} as a key")
    return list(items)


_FROM_MARK: dict[str, Callable[[list[Any]], Any]] = {
    "LIST": list,
    "TUPLE": tuple,
    "DICT": _pairs,
    "FROZENSET": lambda items: frozenset(_hashable(items)),
}


def _known(module: Any, name: Any) -> _Name:
    if (module, name) not in KNOWN:
        raise _Refused(
            f"it names {str(module)[:80]}.{str(name)[:80]}, and a pickle can run what it names; "
            "expected lists, dicts, sets, text, numbers and numpy arrays alone"
        )
    return _Name(KNOWN[module, name])


_EMPTY_BUILTINS: dict[str, Callable[[], Any]] = {
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
    "bytes": bytes,
}


def _call(function: Any, arguments: Any) -> Any:
    """What the function of that name would return, for the arguments that plain data give it."""
    what = function.what if isinstance(function, _Name) else type(function).__name__
    match what, arguments:
        case _, () if what in _EMPTY_BUILTINS:
            return _EMPTY_BUILTINS[what]()
        case "set", (list() | tuple() as items,):
            return set(_hashable(items))
        case "frozenset", (list() | tuple() as items,):
            return frozenset(_hashable(items))
        case "dict", (list() as items,):
            return _pairs([x for pair in items for x in _two(pair)])
        case "encode", (str() as text, "latin1"):
            return text.encode("latin-1")
        case "dtype", (str() as code, *_):
            return _Unbuilt("dtype", code)
        case "_reconstruct", (_Name("ndarray"), tuple(), *_):
            return _Unbuilt("array")
        case "scalar", (np.dtype() as dtype, bytes() | str() as data):
            return _array((), dtype, data).item()
        case "_frombuffer", (bytes() | bytearray() as data, np.dtype() as dtype, shape, order):
            return _array(shape, dtype, bytes(data), order == "F")
    raise _Refused(f"it calls '{what}' with something else than arrays are made of")


def _two(pair: Any) -> Any:
    if type(pair) not in (list, tuple) or len(pair) != 2:
        raise _Refused("it has a key without a value")
    return pair


def _fill(unbuilt: Any, state: Any) -> Any:
    """The dtype or array that `state` completes."""
    if not isinstance(unbuilt, _Unbuilt):
        raise _Refused(f"it sets the state of a {type(unbuilt).__name__}")
    match unbuilt.kind, state:
        case "dtype", (int(), str() as order, None, None, None, *_):
            if not re.fullmatch(r"[<>|=]?[biufSU]\d+|[<>|=]?O8?", order + unbuilt.code):
                raise _Refused(f"it has an array of dtype {unbuilt.code[:40]}")
            unbuilt.value = np.dtype(order + unbuilt.code.replace("O8", "O"))
        case "array", (int(), tuple() as shape, np.dtype() as dtype, fortran, data):
            unbuilt.value = _array(shape, dtype, data, bool(fortran))
        case _:
            raise _Refused(f"it has a {unbuilt.kind} of unknown make")
    return unbuilt.value


def _array(shape: Any, dtype: np.dtype, data: Any, fortran: bool = False) -> np.ndarray:
    if type(shape) is not tuple or any(type(n) is not int or n < 0 for n in shape):
        raise _Refused("it has an array without a shape")
    count, order = math.prod(shape), "F" if fortran else "C"
    if dtype.kind == "O":
        if type(data) is not list or len(data) != count:
            raise _Refused(f"it has an array of shape {list(shape)} without its objects")
        array = np.empty(count, object)
        for i, item in enumerate(data):
            array[i] = item
        return array.reshape(shape, order=order)  # type: ignore[call-overload]
    data = data.encode("latin-1") if isinstance(data, str) else data
    if type(data) is not bytes or len(data) != count * dtype.itemsize:
        raise _Refused(f"it has an array of shape {list(shape)} without its numbers")
    return np.frombuffer(data, dtype, count).reshape(shape, order=order)  # type: ignore[call-overload]


def _built(value: Any) -> Any:
    return value.value if isinstance(value, _Unbuilt) and value.value is not None else value

"""What a compiled program sends between devices: collectives and bytes, read from its text."""

import re
from collections import Counter
from collections.abc import Iterator

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BITS = {"pred": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64} | {
    f"{sign}{bits}": bits for sign in "su" for bits in (4, 8, 16, 32, 64)
}

_HEADER = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\) -> .* \{$")
_COLLECTIVE = re.compile(rf" = (.*?) ({'|'.join(KINDS)})(?:-start)?\(")
_CALLED = re.compile(r"(body|condition|calls|to_apply|branch_computations)=\{?((?:%[\w.-]+,? ?)+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


def bytes_sent(program: str) -> Counter[str]:
    """Kind -> bytes of the results of its collectives, on one device, in one run of a program.

    A collective in a loop counts as often as the loop turns.

    Args:
      program: a compiled program's `as_text()`.

    Raises:
      ValueError: a loop with collectives turns an unknown number of times.
    """
    computations, entry = _computations(program)
    found: dict[str, Counter[str]] = {}

    def visit(name: str) -> Counter[str]:
        if name not in found:
            total: Counter[str] = Counter()
            for line in computations[name]:
                if collective := _COLLECTIVE.search(line):
                    total[collective[2]] += _size(collective[1])
                for called, turns in _calls(line):
                    inside = visit(called)
                    if inside and turns is None:
                        raise ValueError(f"a loop of unknown length sends data: {line[:200]}")
                    total.update({kind: size * (turns or 0) for kind, size in inside.items()})
            found[name] = total
        return found[name]

    return visit(entry)


def _computations(program: str) -> tuple[dict[str, list[str]], str]:
    """(name -> its lines, the name of the first)."""
    found: dict[str, list[str]] = {}
    entry = name = ""
    for line in program.splitlines():
        if header := _HEADER.match(line):
            name = header[2]
            found[name] = []
            entry = name if header[1] else entry
        elif name:
            found[name].append(line)
    return found, entry


def _calls(line: str) -> Iterator[tuple[str, int | None]]:
    """(computation, how often) that a line calls; None: unknown."""
    trips = _TRIPS.search(line)
    for role, names in _CALLED.findall(line):
        turns: int | None = 1
        if role in ("body", "condition"):
            turns = int(trips[1]) if trips else None
        for name in re.findall(r"%([\w.-]+)", names):
            yield name, turns


def _size(shapes: str) -> int:
    """Bytes of arrays such as (f32[2,3]{1,0}, pred[4]{0})."""
    total = 0
    for kind, dims in _ARRAY.findall(shapes):
        count = 1
        for dim in filter(None, dims.split(",")):
            count *= int(dim)
        total += count * BITS.get(kind, 0) // 8
    return total

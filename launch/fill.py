"""python launch/fill.py TEMPLATE [NAME=VALUE ...] -- [FLAG ...]: a Kubernetes manifest on stdout.

The template is YAML, and values go into its parsed text, never into its source: whatever stands in
a value stays in its place. `selector=KEY=VALUE` and `resource=KEY=VALUE` may come several times.
"""

import re
import sys
from pathlib import Path

import yaml

WORKDIRS = "/shared"  # where the volume claim is mounted


class Missing(Exception):
    """The template names a value that was not given."""


def values_of(arguments: list[str], flags: list[str]) -> dict[str, object]:
    """What stands for each {name} of the templates."""
    found: dict[str, object] = {"selector": {}, "resources": {}, "mounts": [], "volumes": []}
    found["service_account"] = "default"
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name in ("selector", "resources"):
            key, _, amount = value.partition("=")
            found[name] |= {key: amount}  # type: ignore[operator]
        elif name == "claim":
            found["mounts"] = [{"name": "shared", "mountPath": WORKDIRS}]
            claim = {"name": "shared", "persistentVolumeClaim": {"claimName": value}}
            found["volumes"] = [claim]
        else:
            found[name] = int(value) if name == "count" else value
    # Kubernetes replaces $(NAME) in arguments; two dollars are one.
    found["flags"] = [flag.replace("$", "$$") for flag in flags]
    return found


def fill(node, values: dict[str, object]):
    """The node with every {name} replaced.

    A text that is nothing but {name} becomes the value itself, with its type; as an item of a list
    a list's items take its place. Within other text a value stands as text.
    """
    if isinstance(node, dict):
        return {key: fill(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [item for entry in node for item in _items(entry, values)]
    if not isinstance(node, str):
        return node
    whole = re.fullmatch(r"\{(\w+)\}", node)
    if whole:
        return _value(whole[1], values)
    return re.sub(r"\{(\w+)\}", lambda match: str(_value(match[1], values)), node)


def _items(entry, values: dict[str, object]) -> list:
    filled = fill(entry, values)
    return filled if isinstance(entry, str) and isinstance(filled, list) else [filled]


def _value(name: str, values: dict[str, object]):
    if name not in values:
        raise Missing(name)
    return values[name]


def main() -> int:
    template, *arguments = sys.argv[1:]
    split = arguments.index("--")
    values = values_of(arguments[:split], arguments[split + 1 :])
    try:
        filled = fill(yaml.safe_load(Path(template).read_text(encoding="utf-8")), values)
    except Missing as name:
        print(f"error: {template} needs {name}=VALUE", file=sys.stderr)
        return 2
    print(yaml.safe_dump(filled, sort_keys=False, allow_unicode=True), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())

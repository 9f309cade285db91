"""Sweeps: a file whose `sweep()` yields overrides, and the points they make of a configuration.

    # configs/sweeps/mine.py
    from mmer_jax.sweep import choice, grid, log_uniform, random

    def sweep():
        yield from grid({"stages.ifmmin.learning_rate": [5e-4, 1e-3], "data.clip_std": [0.0, 3.0]})
        yield from random(20, {"stages.ifmmin.learning_rate": log_uniform(1e-4, 1e-2),
                               "stages.ifmmin.dropout": choice([0.3, 0.5])}, seed=0)

Every dictionary is a point: dotted keys of the configuration and their values, as one would pass
them by --config.KEY=VALUE.
"""

import copy
import dataclasses
import itertools
import json
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from mmer_jax import config as config_lib
from mmer_jax.errors import UserError, shorten

Overrides = dict[str, object]
Sampler = Callable[[np.random.Generator], object]

# Sections that a point may change. Other keys would change the data or what is scored, and points
# must be compared on the same; train.noise* would change what validation meets.
SWEEPABLE = ("model.", "stages.", "train.patterns", "train.rate", "quirks.", "data.clip_std")


# ---- helpers for sweep files ----


def grid(values: Mapping[str, Sequence[object]]) -> Iterator[Overrides]:
    """Every combination, the last key changing fastest."""
    for combination in itertools.product(*values.values()):
        yield dict(zip(values, combination, strict=True))


def random(n: int, samplers: Mapping[str, Sampler], *, seed: int = 0) -> Iterator[Overrides]:
    """`n` points, each key drawn by its sampler; the first points do not depend on `n`."""
    for i in range(n):
        rng = np.random.default_rng((seed, i))
        yield {key: sampler(rng) for key, sampler in samplers.items()}


def log_uniform(low: float, high: float) -> Sampler:
    """Uniform in the logarithm, for learning rates and loss weights; four digits."""
    return lambda rng: float(f"{np.exp(rng.uniform(np.log(low), np.log(high))):.3e}")


def uniform(low: float, high: float) -> Sampler:
    """Uniform; four digits."""
    return lambda rng: float(f"{rng.uniform(low, high):.3e}")


def choice(values: Sequence[object]) -> Sampler:
    """One of `values`, each as likely."""
    return lambda rng: values[int(rng.integers(len(values)))]


# ---- points ----


@dataclasses.dataclass(frozen=True)
class Point:
    """One setting of a sweep; a run without a sweep is the single point without overrides."""

    number: int
    overrides: Overrides
    config: ConfigDict

    @property
    def key(self) -> str:
        """Names the point whatever its number: its overrides in a canonical form."""
        return json.dumps(self.overrides, sort_keys=True)

    @property
    def program_key(self) -> str:
        """Equal for points that one compiled program can train side by side."""
        values = config_lib.flat(self.config)
        return json.dumps({k: v for k, v in values.items() if not _is_per_trial(k)})

    def __str__(self) -> str:
        return ", ".join(f"{k}={v}" for k, v in self.overrides.items()) or "(no override)"


def _is_per_trial(key: str) -> bool:
    """Whether trials that train side by side may differ in this key."""
    if key.startswith("stages."):
        return config_lib.is_hyper(key.rsplit(".", 1)[1])
    return key in ("data.clip_std", "train.rate")


def single_point(config: ConfigDict) -> list[Point]:
    """A run without a sweep."""
    return [Point(0, {}, config)]


def load_sweep(path: Path, config: ConfigDict) -> list[Point]:
    """The points of a sweep file.

    Raises:
      UserError: the file is missing or fails, yields nothing, the same point twice, or keys or
        values that the configuration does not have.
    """
    if not path.exists():
        raise UserError(f"sweep file {path} does not exist")
    sys.path.append(str(path.resolve().parent.parent.parent))
    try:
        function = runpy.run_path(str(path))["sweep"]
        found = list(function())
    except KeyError as error:
        raise UserError(
            f"sweep file {path}: {error} is missing; it must define sweep(), which yields overrides"
        ) from None
    except Exception as error:
        raise UserError(f"sweep file {path} fails: {type(error).__name__}: {error}") from error
    if not found:
        raise UserError(f"sweep file {path} yields no point; sweep() must yield override dicts")
    points = [_point(path, number, item, config) for number, item in enumerate(found)]
    keys = [point.key for point in points]
    twice = sorted({points[i].number for i, key in enumerate(keys) if key in keys[:i]})
    if twice:
        raise UserError(f"sweep file {path} yields points twice: {shorten(twice)} (counted from 0)")
    return points


def _point(path: Path, number: int, overrides, config: ConfigDict) -> Point:
    where = f"sweep file {path}, point {number}"
    if not isinstance(overrides, Mapping) or not all(isinstance(k, str) for k in overrides):
        raise UserError(f"{where} is {overrides!r}; expected a dict of dotted keys and values")
    overrides = json.loads(json.dumps(dict(overrides), default=float))
    try:
        config_lib.check_overrides(config, overrides)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    fixed = [key for key in overrides if not key.startswith(SWEEPABLE)]
    if fixed:
        raise UserError(
            f"{where} changes {shorten(fixed)}; a sweep may change {', '.join(SWEEPABLE)} (its "
            "points are compared on the same data and scores); use another run for that"
        )
    own = copy.deepcopy(config)
    for key, value in overrides.items():
        value = tuple(value) if isinstance(value, list) else value
        try:
            config_lib.assign(own, key, value)
        except (TypeError, ValueError) as error:
            raise UserError(f"{where}: {key}={value!r}: {error}") from None
    try:
        config_lib.check_values(own)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return Point(number, overrides, own)

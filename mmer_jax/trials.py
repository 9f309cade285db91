"""Trials: what trains side by side on the leading axis of every array."""

import ast
import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence

import numpy as np

from mmer_jax.data.shuffle import shuffled
from mmer_jax.data.units import Units, empty
from mmer_jax.errors import UserError
from mmer_jax.sweep import Overrides, Point


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training run: its numbers depend on these three alone, never on its neighbours."""

    point: Point
    fold: int
    seed: int

    @property
    def key(self) -> str:
        """Names the trial in checkpoints, also after the sweep has got more points."""
        return f"{self.point.key} fold {self.fold} seed {self.seed}"

    def __str__(self) -> str:
        where = f"point {self.point.number}, " if self.point.overrides else ""
        return f"{where}fold {self.fold}, seed {self.seed}"


def parse_key(key: str) -> tuple[Overrides, int, int]:
    """(overrides of the point, fold, seed) of a `Trial.key`."""
    point, _, fold, _, seed = key.rsplit(" ", 4)
    return json.loads(point), int(fold), int(seed)


@dataclasses.dataclass(frozen=True)
class Group:
    """Trials that train together.

    Attributes:
      trials: in order.
      width: the trial axis of its programs, at least the number of trials. Groups of one width
        share compiled programs, and a trial's numbers are those of an undisturbed run even where
        only part of a group is left to train.
    """

    trials: tuple[Trial, ...]
    width: int

    @property
    def name(self) -> str:
        """Of its checkpoints: the same trials in the same order have the same name."""
        text = "\n".join(trial.key for trial in self.trials)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def make_trials(points: Sequence[Point], n_folds: int) -> list[Trial]:
    """Points × folds × seeds, as `config.trials` asks for."""
    settings = points[0].config.trials
    folds = _parse_folds(settings.folds, n_folds)
    return [
        Trial(point, fold, seed)
        for point in points
        for fold in folds
        for seed in range(settings.seeds)
    ]


def make_groups(trials: Sequence[Trial], max_parallel: int) -> list[Group]:
    """Trials that one program can train, at most `max_parallel` (0: all) in about equal groups."""
    by_program: dict[str, list[Trial]] = {}
    for trial in trials:
        by_program.setdefault(trial.point.program_key, []).append(trial)
    groups = []
    for members in by_program.values():
        parts = _cut(members, max_parallel or len(members))
        groups += [Group(part, len(parts[0])) for part in parts]
    return groups


def pending_groups(
    groups: Sequence[Group],
    done: set[str],
    begun: Sequence[Sequence[str]],
    max_parallel: int = 0,
    *,
    keep_cuts: bool = False,
) -> list[Group]:
    """The groups that are left when the trials `done` (keys) are trained.

    Args:
      groups: of all trials.
      begun: trial keys of groups that have a checkpoint. As long as all of them are asked for they
        stay together, so that the checkpoint is used, also where a new group would be smaller.
      max_parallel: what the user asks for: larger groups start afresh, in parts. 0: nothing.
      keep_cuts: what is left of a group stays by itself, so that workers who look at different
        times cut alike. Otherwise what is left is cut anew, into as few groups as possible.
    """
    left = []
    for width, parts in _by_width(groups):
        pending = {trial.key: trial for part in parts for trial in part if trial.key not in done}
        for keys in begun:
            if len(keys) <= (max_parallel or len(keys)) and set(keys) <= pending.keys():
                together = tuple(pending.pop(key) for key in keys)
                left.append(Group(together, max(width, len(keys))))
        if keep_cuts:
            rest = [tuple(trial for trial in part if trial.key in pending) for part in parts]
        else:
            rest = _cut(list(pending.values()), width)
        left += [Group(part, width) for part in rest if part]
    return left


def _by_width(groups: Sequence[Group]) -> list[tuple[int, list[tuple[Trial, ...]]]]:
    """The groups' trials, of those together that share a program."""
    found: dict[str, tuple[int, list[tuple[Trial, ...]]]] = {}
    for group in groups:
        key = group.trials[0].point.program_key
        found.setdefault(key, (group.width, []))[1].append(group.trials)
    return list(found.values())


def _cut(trials: Sequence[Trial], limit: int) -> list[tuple[Trial, ...]]:
    """About equal parts of at most `limit` trials."""
    count = -(-len(trials) // limit)
    indices = np.array_split(np.arange(len(trials)), count) if count else []
    return [tuple(trials[i] for i in part) for part in indices]


def epoch_order(
    units: Units,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    shuffle_buffer: int = 0,
    pack: Callable[[Units], Units] = lambda units: units,
) -> Units:
    """Tables [steps, batch_size, L] in the order of one epoch, packed, filled up in the last batch.

    A pure function of its arguments: the same for a device-resident and a streamed corpus, alone
    and among other trials, and after a resume.

    Args:
      units: [n, L] of one epoch.
      batch_size: units of a batch.
      seed, epoch: any order follows from them.
      shuffle_buffer: utterances among which the order is drawn, as of `shuffled`; 0: all.
      pack: as of a grouping.
    """
    order = shuffled(units, np.random.default_rng((seed, epoch)), shuffle_buffer)
    return fill_up(pack(Units(units.rows[order], units.counted[order])), batch_size)


def fill_up(units: Units, batch_size: int) -> Units:
    """Tables [n_batches, batch_size, L] of units [n, L] in order, without utterances at the end."""
    count = -(-len(units) // batch_size) * batch_size
    more = empty(count - len(units), units.rows.shape[1])
    return Units(
        *(
            np.concatenate(both).reshape(-1, batch_size, both[0].shape[1])
            for both in zip(units, more, strict=True)
        )
    )


def stack_tables(tables: Sequence[Units]) -> Units:
    """Tables [S_t, U, L] of T trials as [max S, T, U, L]; shorter ones end in empty batches."""
    longest = max(len(table) for table in tables)
    filled = []
    for table in tables:
        more = empty(longest - len(table), *table.rows.shape[1:])
        filled.append([np.concatenate(both) for both in zip(table, more, strict=True)])
    return Units(*(np.stack(parts, axis=1) for parts in zip(*filled, strict=True)))


def _parse_folds(folds, n_folds: int) -> list[int]:
    if folds == "all":
        return list(range(n_folds))
    try:
        value = ast.literal_eval(folds) if isinstance(folds, str) else folds
        chosen = [value] if isinstance(value, int) else [int(f) for f in value]
    except (ValueError, SyntaxError, TypeError):
        chosen = []
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(range(n_folds)):
        raise UserError(
            f"trials.folds is {folds!r}; expected 'all' or a list of distinct folds from 0 to "
            f"{n_folds - 1}"
        )
    return sorted(chosen)

"""Trials: the (fold, seed) pairs that train side by side on the leading axis of every array."""

import ast
import dataclasses
from collections.abc import Sequence

import numpy as np

from mmer_jax.errors import UserError


@dataclasses.dataclass(frozen=True, order=True)
class Trial:
    """One training run: its numbers depend on these two alone, never on its neighbours."""

    fold: int
    seed: int

    def __str__(self) -> str:
        return f"fold {self.fold}, seed {self.seed}"


def make_trials(config, n_folds: int) -> list[Trial]:
    """The trials of `config.trials`: chosen folds × seeds."""
    folds = _parse_folds(config.trials.folds, n_folds)
    return [Trial(fold, seed) for fold in folds for seed in range(config.trials.seeds)]


def make_groups(trials: Sequence[Trial], max_parallel: int) -> list[list[Trial]]:
    """Trials that train together, at most `max_parallel` (0: all) in about equal groups."""
    limit = max_parallel or len(trials)
    n_groups = -(-len(trials) // limit)
    return [[trials[i] for i in part] for part in np.array_split(np.arange(len(trials)), n_groups)]


def epoch_order(rows: np.ndarray, batch_size: int, *, seed: int, epoch: int) -> np.ndarray:
    """[steps, batch_size] rows in the order of one epoch, -1 filling up the last batch.

    A pure function of its arguments: the same for a device-resident and a streamed corpus, alone
    and among other trials, and after a resume.
    """
    shuffled = np.random.default_rng((seed, epoch)).permutation(rows)
    return fill_up(shuffled, batch_size)


def fill_up(rows: np.ndarray, batch_size: int, n_batches: int = 0) -> np.ndarray:
    """[n_batches, batch_size] rows in order, -1 at the end; by default as few batches as fit."""
    n_batches = n_batches or -(-len(rows) // batch_size)
    table = np.full(n_batches * batch_size, -1, np.int32)
    table[: len(rows)] = rows
    return table.reshape(n_batches, batch_size)


def stack_tables(tables: Sequence[np.ndarray]) -> np.ndarray:
    """Tables [S_t, B] of T trials as one [max S, T, B]; shorter ones end in empty batches."""
    longest = max(len(table) for table in tables)
    return np.stack([fill_up(t.reshape(-1), t.shape[1], longest) for t in tables], axis=1)


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

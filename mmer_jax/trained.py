"""What a finished run left in its workdir, read back for prediction.

The members of an ensemble are the trials whose test scores stand in results.csv: every fold and
seed of the run, of a sweep those of the point that validation chose.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mmer_jax import workdir as workdir_lib
from mmer_jax.checkpoint import finished_trials, load_final
from mmer_jax.config import from_flat
from mmer_jax.data.corpus import CorpusSpec
from mmer_jax.data.normalize import load_statistics
from mmer_jax.errors import UserError, shorten
from mmer_jax.integrity import Damaged, read_signed
from mmer_jax.methods import make_stages
from mmer_jax.methods.stage import Stage
from mmer_jax.recall import Place, needed
from mmer_jax.recall import load as load_databases
from mmer_jax.sweep import Overrides
from mmer_jax.trials import parse_key

Weights = dict[str, Any]


class Member(NamedTuple):
    """A trained model: the one of this fold and seed."""

    fold: int
    seed: int


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """The members of a run.

    Attributes:
      stage: the last one; it predicts.
      spec: modalities and classes.
      members: of the ensemble, E of them.
      pad_masking: padding never counts, so that sequences may be of any length.
      weights: all numbers that a prediction needs, each leaf [E, ...]: `params` of the stage, and
        of each member's fold `mean`, `std` (by modality), `label_mean`, `label_std` and `clip` (in
        standard deviations, may be infinite); of a stage that recalls, `earlier` parameters and the
        `database`.
    """

    stage: Stage
    spec: CorpusSpec
    members: tuple[Member, ...]
    pad_masking: bool
    weights: Weights


def load_trained(
    workdir: Path, *, folds: Sequence[int] | None = None, seeds: Sequence[int] | None = None
) -> TrainedRun:
    """The trained models of a workdir.

    Args:
      workdir: of a finished run.
      folds, seeds: those to use; all by default.

    Raises:
      UserError: the run is not finished, something of it is missing, or it has no such fold.
    """
    values, spec = workdir_lib.read_run(workdir)
    overrides, keys = _scored(workdir)
    chosen = _select(keys, "fold", folds, workdir)
    chosen = _select(chosen, "seed", seeds, workdir)
    config = from_flat({**values, **overrides})
    stages = make_stages(config, spec)
    stage = stages[-1]
    names = needed(stages) if stage.recalls else []
    members, places, stored = _parameters(workdir, {*names, stage.name}, chosen)
    statistics, (label_mean, label_std) = load_statistics(workdir, spec.names)
    of = [member.fold for member in members]
    clip = np.full(len(members), config.data.clip_std or np.inf, np.float32)
    weights = {
        "params": stored[stage.name],
        "mean": {name: mean[of] for name, (mean, _) in statistics.items()},
        "std": {name: std[of] for name, (_, std) in statistics.items()},
        "label_mean": label_mean[of],
        "label_std": label_std[of],
        "clip": clip,
    }
    if stage.recalls:
        weights["earlier"] = {name: stored[name] for name in names}
        weights["database"] = load_databases(workdir, places, weights, stage, spec)
    return TrainedRun(
        stage=stage,
        spec=spec,
        members=members,
        pad_masking=config.quirks.pad_masking,
        weights=weights,
    )


def _scored(workdir: Path) -> tuple[Overrides, dict[Member, str]]:
    """(overrides of the chosen point, member -> trial key) of what results.csv scores."""
    path = workdir / "evaluated.json"
    try:
        keys = read_signed(path)["trials"]
        parsed = [parse_key(key) for key in keys]
        overrides = parsed[0][0]  # all are of one point
        members = [Member(fold, seed) for _, fold, seed in parsed]
        return overrides, dict(zip(members, keys, strict=True))
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist: the run in {workdir} is not finished; run the same training "
            "command again"
        ) from None
    except (Damaged, ValueError, LookupError, TypeError, AttributeError) as error:
        why = str(error) if isinstance(error, Damaged) else f"is damaged ({error})"
        raise UserError(
            f"{path} {why}; delete it and run the same training command again"
        ) from None


def _select(
    keys: dict[Member, str], what: str, wanted: Sequence[int] | None, workdir: Path
) -> dict[Member, str]:
    """The members whose `what` (fold or seed) is wanted."""
    if wanted is None:
        return keys
    there = sorted({getattr(member, what) for member in keys})
    unknown = sorted(set(wanted) - set(there))
    if unknown or not wanted:
        raise UserError(
            f"{workdir} has no {what} {shorten(unknown) or '(none is given)'}; it has: "
            f"{', '.join(map(str, there))}"
        )
    return {member: key for member, key in keys.items() if getattr(member, what) in wanted}


def _parameters(
    workdir: Path, stages: set[str], keys: dict[Member, str]
) -> tuple[tuple[Member, ...], list[Place], Weights]:
    """(members, where they are, best parameters [E, ...] by stage), group after group."""
    done = finished_trials(workdir)
    gone = [key for key in keys.values() if key not in done]
    if gone:
        raise UserError(
            f"{workdir / 'checkpoints' / 'final'} has no parameters of: {shorten(gone)}; run the "
            "same training command again"
        )
    members: list[Member] = []
    places: list[Place] = []
    parts = []
    for group in dict.fromkeys(done[key].group for key in keys.values()):
        mine = {member: done[key] for member, key in keys.items() if done[key].group == group}
        rows = np.array([trial.position for trial in mine.values()])
        found = load_final(workdir, group)
        stored = {name: found[name] for name in stages}
        parts.append(jax.tree.map(lambda leaf, rows=rows: np.asarray(leaf)[rows], stored))
        members += mine
        places += [(group, int(row)) for row in rows]
    return tuple(members), places, jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

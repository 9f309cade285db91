"""What predictions of a stage that recalls need beside its parameters, kept in the workdir.

That is the parameters of the stages before it, which checkpoints/final/ has, and the database of
each trial: what `prepare` says of its training rows and of the unlabelled ones.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmer_jax import database as database_lib
from mmer_jax import distributed
from mmer_jax import mesh as mesh_lib
from mmer_jax.data.corpus import CorpusSpec
from mmer_jax.database import Database, fingerprint
from mmer_jax.methods.stage import EMPTY, FILLING, OTHER, Batch, Stage
from mmer_jax.programs import TrialData

Place = tuple[str, int]  # group of trials, position in it

# All that the hidden states of a trial depend on, but for features.
ENCODER = ("earlier", "mean", "std", "clip")


def needed(stages: Sequence[Stage]) -> list[str]:
    """The stages whose parameters `prepare` of the last one is given."""
    *before, last = stages
    return [stage.name for stage in (*before, *([last] if last.refresh_epochs else []))]


def save(workdir: Path, group: str, trials: TrialData, ids: Sequence[list[str]]) -> None:
    """The databases of a group's trials.

    Args:
      trials: with earlier parameters and the database [T, R, ...], and maybe trials that fill up.
      ids: the utterances of each trial's database.
    """
    made_by = {name: getattr(trials, name) for name in ENCODER}
    everything = mesh_lib.fetch((made_by, dict(trials.constants["database"])))
    distributed.on_first(lambda: _write(workdir, group, everything, ids))


def _write(workdir: Path, group: str, everything, ids: Sequence[list[str]]) -> None:
    for position, names in enumerate(ids):
        encoder, arrays = jax.tree.map(lambda x, p=position: x[p], everything)
        row = arrays.pop("row")
        real = (row != EMPTY) & (row != FILLING)
        stored = Database(names, {name: x[real] for name, x in arrays.items()})
        path = _path(workdir, (group, position))
        database_lib.save(path, stored, encoder=fingerprint(encoder))


def load(
    workdir: Path,
    places: Sequence[Place],
    trials: Mapping[str, Any],
    stage: Stage,
    spec: CorpusSpec,
    ids: Sequence[list[str]] | None = None,
) -> dict[str, np.ndarray] | None:
    """The databases of some trials, [E, R, ...] each, with "row"; None where there are none.

    Args:
      places: where the E trials are.
      trials: `earlier` parameters, `mean`, `std` and `clip` of theirs, leaves [E, ...].
      ids: the utterances that each must hold; None: any.

    Raises:
      UserError: a database is missing, damaged, or of another encoder, other rows or shapes.
    """
    if not stage.recalls or stage.relate is None:
        return None
    made_by = mesh_lib.fetch({name: trials[name] for name in ENCODER})
    found = []
    for number, place in enumerate(places):
        one = jax.tree.map(lambda x, n=number: x[n], made_by)
        stored = database_lib.load(
            _path(workdir, place),
            encoder=fingerprint(one),
            shapes=_shapes(stage, spec, one["earlier"]),
            ids=None if ids is None else ids[number],
        )
        found.append(stored)
    longest = max(len(stored.ids) for stored in found)
    rows = [
        _filled(np.full(len(stored.ids), OTHER, np.int32), longest, FILLING) for stored in found
    ]
    arrays = [
        {name: _filled(x, longest, 0) for name, x in stored.arrays.items()} for stored in found
    ]
    return jax.tree.map(lambda *x: np.stack(x), *arrays) | {"row": np.stack(rows)}


def _path(workdir: Path, place: Place) -> Path:
    group, position = place
    return workdir / "databases" / group / f"{position}.safetensors"


def _shapes(stage: Stage, spec: CorpusSpec, earlier) -> dict[str, tuple[int, ...]]:
    """name -> shape of what `prepare` says of one utterance."""
    shapes = jax.eval_shape(stage.prepare, earlier, one_utterance(spec))
    return {name: x.shape[1:] for name, x in shapes.items()}


def one_utterance(spec: CorpusSpec) -> Batch:
    """A batch of one utterance of zeros, for shapes."""
    shapes = {m.name: m.shape for m in spec.modalities}
    present = np.ones((1, len(spec.modalities)), bool)
    make: Any = Batch  # of NumPy arrays: a program's arguments
    return make(
        features={name: np.zeros((1, *shape), np.float32) for name, shape in shapes.items()},
        lengths={m.name: np.ones(1, np.int32) for m in spec.modalities if m.is_sequence},
        present=present,
        labels=np.zeros((1, len(spec.tasks)), np.int32 if spec.is_classification else np.float32),
        weights=np.ones(1, np.float32),
        turns=np.ones((1, 1), bool),
        available=present[None],
        patterns=None,
        noisy=None,
        frozen={},
        constants={},
        rows=np.zeros(1, np.int32),
    )


def _filled(x: np.ndarray, length: int, value: int) -> np.ndarray:
    widths = [(0, length - len(x))] + [(0, 0)] * (x.ndim - 1)
    return np.pad(x, widths, constant_values=value)

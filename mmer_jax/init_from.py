"""Fine-tuning: training starts from the parameters that another workdir ended with.

`train.init_from` names the workdir, one of our runs or an import. A trial starts from the
trial of the same fold and seed there, or from the only trial there is. Other folds are refused: a
fold's test utterances are training utterances of the others, and parameters that have seen them
make test scores too good. A single trial of another fold of the same corpus does so as well; that
it comes from elsewhere is the user's to know.

Every stage that the workdir has starts from there; later ones are initialised as ever.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmer_jax import mirror
from mmer_jax.checkpoint import Finished, load_final, usable_trials
from mmer_jax.errors import UserError, shorten
from mmer_jax.methods.stage import Params
from mmer_jax.trials import Trial, parse_key

MAX_LISTED = 40


def initial_params(
    source: str, trials: Sequence[Trial], stages: Sequence[str]
) -> dict[str, list[Params]]:
    """{stage: parameters of each trial}, for the stages that the workdir `source` has.

    Args:
      source: `train.init_from`; empty for none.
      trials: that start from it.
      stages: names of all their stages, in order.

    Raises:
      UserError: the workdir has no finished trial, none for one of the trials, none of the stages,
        or a later one without those before it.
    """
    if not source:
        return {}
    workdir = mirror.folder(source)
    done = usable_trials(workdir)
    if not done:
        raise UserError(
            f"train.init_from: {workdir} has no finished trials; give the workdir of a finished "
            "run or of python -m mmer_jax.import_torch"
        )
    chosen = [_source_of(trial, done, workdir) for trial in trials]
    groups = {name: load_final(workdir, name) for name in {entry.group for entry in chosen}}
    there = {name for group in groups.values() for name in group}
    having = [name for name in stages if name in there]
    if not having:
        raise UserError(
            f"train.init_from: {workdir} has the stages {', '.join(sorted(there))}, none of "
            f"{', '.join(stages)}"
        )
    lacking = [name for name in stages[: stages.index(having[-1])] if name not in there]
    if lacking:
        raise UserError(
            f"train.init_from: {workdir} has {having[-1]} without its teacher {lacking[0]}, which "
            "fine-tuning needs; import it again with --teacher=DIR_OR_FILE"
        )
    return {
        name: [_trial_of(groups[entry.group][name], entry.position) for entry in chosen]
        for name in having
    }


def _source_of(trial: Trial, done: dict[str, Finished], workdir: Path) -> Finished:
    same = [entry for key, entry in done.items() if parse_key(key)[1:] == (trial.fold, trial.seed)]
    if len(same) == 1:
        return same[0]
    if len(done) == 1:
        return next(iter(done.values()))
    problem = f"{len(same)} points of a sweep with" if same else "several trials, but none with"
    raise UserError(
        f"train.init_from: {workdir} has {problem} fold {trial.fold}, seed {trial.seed}; it has: "
        f"{shorten([key.removeprefix('{} ') for key in done], MAX_LISTED)}. Trials of other folds "
        "have seen this fold's test utterances; choose --config.trials.folds and "
        "--config.trials.seeds among those there."
    )


def _trial_of(stored: Any, position: int) -> Params:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[position], stored)


def check(source: str, stage: str, given: Params, expected: Params) -> None:
    """Refuse parameters of other names or shapes, listing all.

    Args:
      source: `train.init_from`.
      given: of one trial.
      expected: of a trial; shapes suffice.
    """
    there, here = _leaf_shapes(given), _leaf_shapes(expected)
    problems = [f"{name} is missing" for name in sorted(here.keys() - there.keys())]
    problems += [f"{name} is not of this model" for name in sorted(there.keys() - here.keys())]
    problems += [
        f"{name} has shape {there[name]}, expected {here[name]}"
        for name in sorted(here.keys() & there.keys())
        if there[name] != here[name]
    ]
    if problems:
        raise UserError(
            f"train.init_from: stage {stage} of {source} does not fit this configuration and "
            f"corpus: {shorten(problems, MAX_LISTED)}. Set model.* as in its config.json."
        )


def _leaf_shapes(params: Params) -> dict[str, tuple[int, ...]]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }

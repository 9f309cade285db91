"""From a trained group to rows of results.csv: every test utterance once per condition."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from mmer_jax import distributed, metrics, recall
from mmer_jax.checkpoint import Finished, load_final
from mmer_jax.data.corpus import Corpus, CorpusSpec
from mmer_jax.data.noise import NoiseDraw
from mmer_jax.data.protocols import RATES, Condition, condition_name, effective_rate
from mmer_jax.data.units import Units, places
from mmer_jax.experiment import Experiment, GroupArrays
from mmer_jax.pairs import PairCounts
from mmer_jax.records import write_atomically
from mmer_jax.results import Result
from mmer_jax.study import StudyTable
from mmer_jax.trials import Group, Trial

PICTURED = 500  # utterances in the picture of invariant features
IMAGINATION = "imagination_R2"  # metric of methods that imagine, of protocol pattern


def evaluate_trials(
    experiment: Experiment,
    trials: Sequence[Trial],
    width: int,
    done: Mapping[str, Finished],
    conditions: Sequence[Condition],
    workdir: Path,
) -> list[Result]:
    """Test scores of trained trials, by the last stage's best parameters.

    Args:
      experiment: for data and programs.
      trials: all of one point.
      width: of the trial axis.
      done: where their parameters are.
      conditions: what to score.
      workdir: parameters are read from it; invariants.npz, pairs.npz and hardness.csv are written
        to it.
    """
    stages = experiment.stages(trials[0].point)
    stage = stages[-1]
    by_row = stage.unit == "dialogue" or (stage.unit == "history" and stage.history_missing)
    needed = needed_masks if by_row else needed_patterns
    draws = dict.fromkeys(draw for c in conditions for draw in c.noise)
    masks = {draw: needed(conditions, draw) for draw in draws}
    programs = experiment.programs(trials[0].point, stage)
    results: list[Result] = []
    full = next((c.available[0] for c in conditions if c.protocol == "full"), None)
    pairs = PairCounts(experiment.corpus.spec)
    study = StudyTable(experiment, stage)
    imagines = stage.imagine is not None and any(c.protocol == "pattern" for c in conditions)
    for group in dict.fromkeys(done[trial.key].group for trial in trials):
        mine = [trial for trial in trials if done[trial.key].group == group]
        stored = load_final(workdir, group)
        for start in range(0, len(mine), width):
            part = mine[start : start + width]
            arrays = GroupArrays(experiment, Group(tuple(part), width))
            index = np.array([done[trial.key].position for trial in part])
            trained = jax.tree.map(lambda leaf, i=index, a=arrays: a.on_trials(leaf[i]), stored)
            params = trained[stage.name]
            earlier = {n: trained[n] for n in recall.needed(stages) if n in trained}
            tests = [fold.test for fold in arrays.folds]
            units = arrays.evaluation_tables(stage, tests)
            data = arrays.trial_data(len(stages) - 1)
            if stage.recalls:
                made_by = data._asdict() | {"earlier": earlier}
                where = [(group, int(position)) for position in index]
                stored_rows = recall.load(
                    workdir, where, made_by, stage, experiment.corpus.spec, arrays.known_ids()
                )
                data = programs.remember(data, earlier, jax.tree.map(arrays.on_trials, stored_rows))
            outputs = {
                draw: programs.predict(
                    params, data, experiment.feed, units, masks[draw], experiment.noise(draw)
                )
                for draw in draws
            }
            for i, (trial, test) in enumerate(zip(part, tests, strict=True)):
                found = places(units, i, test)
                scored = {draw: output[i][:, found] for draw, output in outputs.items()}
                if full is not None:
                    which = _which(full, masks[None], test)
                    pairs.add(scored[None][which, np.arange(len(test))])
                results += score_trial(
                    experiment.corpus,
                    trial,
                    test,
                    scored,
                    conditions,
                    masks,
                    method=experiment.config.method,
                )
            has_teacher = {s.name for s in stages} <= trained.keys()  # an import may lack it
            if has_teacher and (imagines or study.splits):
                prepared = programs.prepare(
                    earlier, data, experiment.feed, *arrays.prepare_inputs(stage)
                )
                if imagines:
                    results += _imagination(experiment, programs, arrays, params, prepared, units)
                if study.splits:
                    study.add(programs, arrays, params, prepared)
            if trials[0] in part:
                _save_invariants(workdir, experiment, programs, params, data, units, tests[0])
    distributed.on_first(lambda: pairs.save(workdir, experiment.corpus))
    distributed.on_first(lambda: study.save(workdir))
    return results


def _imagination(experiment, programs, arrays, params, prepared, units) -> list[Result]:
    """How much of the variance of what is missing is imagined, by pattern."""
    corpus = experiment.corpus
    shares = programs.imagination(params, prepared, experiment.feed, units)
    return [
        Result(
            method=experiment.config.method,
            dataset=corpus.name,
            fold=trial.fold,
            seed=trial.seed,
            split="test",
            protocol="pattern",
            condition=condition_name(pattern, corpus.spec.names),
            metric=IMAGINATION,
            value=f"{share:.6f}",
            n=len(experiment.folds[trial.fold].test),
        )
        for trial, by_pattern in zip(arrays.trials, shares, strict=False)  # the others only pad
        for pattern, share in zip(programs.patterns, by_pattern, strict=True)
        if np.isfinite(share)  # not where the corpus itself lacks what the pattern takes away
    ]


def _save_invariants(workdir, experiment, programs, params, data, units, test) -> None:
    """invariants.npz: the first trial's invariant features of some test utterances.

    Of several tasks it has the first one's labels; -1 where there is none.
    """
    corpus = experiment.corpus
    per_step = units.rows[0, 0].size
    some = Units(*(x[: -(-PICTURED // per_step)] for x in units))
    features = programs.invariants(params, data, experiment.feed, some)
    if features is None:
        return
    rows, counted = (x[:, 0].reshape(-1) for x in some)
    picked = np.flatnonzero(counted)[:PICTURED]
    picked = picked[corpus.present[rows[picked]].all(axis=1)]
    archive = io.BytesIO()
    np.savez_compressed(
        archive,
        features=features[0, picked].astype(np.float16),
        labels=corpus.labels[rows[picked], 0],
        modalities=np.array(corpus.spec.names),
        classes=np.array(corpus.spec.tasks[0].classes, dtype=str),
    )
    path = workdir / "invariants.npz"
    distributed.on_first(lambda: write_atomically(path, archive.getvalue()))


def needed_patterns(conditions: Sequence[Condition], noise: NoiseDraw | None) -> np.ndarray:
    """[K, M] bool: every pattern in the masks of the conditions that have this noise.

    The prediction of an utterance depends on what it has left and on nothing else, so these K
    cover any number of rates and draws: with three modalities at most 7.
    """
    size = conditions[0].available.shape[-1]
    codes = [np.unique(_codes(mask)) for mask in _masks(conditions, noise)]
    return (np.unique(np.concatenate(codes))[:, None] >> np.arange(size)) & 1 == 1


def needed_masks(conditions: Sequence[Condition], noise: NoiseDraw | None) -> np.ndarray:
    """[K, N, M] bool: every mask of the conditions that have this noise, once.

    In a dialogue a prediction depends on what the other turns have left as well.
    """
    different = {mask.tobytes(): mask for mask in _masks(conditions, noise)}
    return np.stack(list(different.values()))


def _masks(conditions: Sequence[Condition], noise: NoiseDraw | None) -> list[np.ndarray]:
    """[N, M] each."""
    return [
        mask
        for condition in conditions
        for mask, draw in zip(condition.available, condition.noise, strict=True)
        if draw == noise
    ]


def _which(mask: np.ndarray, masks: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """[n]: which of the patterns [K, M] or masks [K, N, M] each of `rows` has under `mask`."""
    if masks.ndim == 3:
        k = next(k for k, other in enumerate(masks) if (other == mask).all())
        return np.full(len(rows), k)
    return np.searchsorted(_codes(masks), _codes(mask[rows]))


def score_trial(
    corpus: Corpus,
    trial: Trial,
    rows: np.ndarray,
    outputs: Mapping[NoiseDraw | None, np.ndarray],
    conditions: Sequence[Condition],
    masks: Mapping[NoiseDraw | None, np.ndarray],
    *,
    method: str,
    split: str = "test",
) -> list[Result]:
    """Results of one trial; the draws of a condition are scored together.

    Args:
      corpus: for labels and names.
      rows: [n] rows that were scored.
      outputs: for each noise of the conditions [K, n, C] logits (or [K, n, 1] values).
      conditions: what to score.
      masks: what `outputs` are under: `needed_patterns` or `needed_masks` for each noise.
    """
    results = []
    for condition in conditions:
        output = np.stack(  # [draws, n, C]
            [
                outputs[draw][_which(mask, masks[draw], rows), np.arange(len(rows))]
                for mask, draw in zip(condition.available, condition.noise, strict=True)
            ]
        )
        labels = np.tile(corpus.labels[rows], (len(output), 1))
        scores = _scores(corpus.spec, labels, output.reshape(len(labels), -1))
        if condition.protocol in RATES:
            rate = effective_rate(condition, corpus, rows)
            scores["effective_rate"] = (f"{rate:.6f}", len(labels))
        results += [
            Result(
                method=method,
                dataset=corpus.name,
                fold=trial.fold,
                seed=trial.seed,
                split=split,
                protocol=condition.protocol,
                condition=condition.name,
                metric=metric,
                value=value,
                n=n,
            )
            for metric, (value, n) in scores.items()
        ]
    return results


def _codes(available: np.ndarray) -> np.ndarray:
    """[..., M] bool as binary numbers [...]."""
    return available @ (1 << np.arange(available.shape[-1]))


def _scores(spec: CorpusSpec, labels: np.ndarray, output: np.ndarray) -> dict[str, tuple[str, int]]:
    """{metric: (value, utterances)}; of several tasks "TASK/METRIC" and the joint score."""
    if not spec.is_classification:
        values = metrics.regression_scores(labels[:, 0], output[:, 0])
        return {name: (f"{value:.6f}", len(labels)) for name, value in values.items()}
    scores: dict[str, tuple[str, int]] = {}
    f1 = []
    for i, (task, mine) in enumerate(zip(spec.tasks, spec.split(output), strict=True)):
        known = labels[:, i] >= 0
        confusion = metrics.confusion_counts(
            labels[known, i], mine[known].argmax(axis=-1), len(task.classes)
        )
        values = metrics.classification_scores(confusion)
        f1.append(values["weighted_F1"])
        prefix, n = f"{task.name}/" if len(spec.tasks) > 1 else "", int(known.sum())
        scores |= {f"{prefix}{name}": (f"{value:.6f}", n) for name, value in values.items()}
        for j, truth in enumerate(task.classes):
            for k, predicted in enumerate(task.classes):
                metric = f"{prefix}confusion:{truth}>{predicted}"
                scores[metric] = (str(int(confusion[j, k])), n)
    if len(f1) > 1:
        scores[metrics.JOINT] = (f"{metrics.joint_score(f1):.6f}", len(labels))
    return scores

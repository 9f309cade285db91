"""From a trained group to rows of results.csv: every test utterance once per condition."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from mmer_jax import metrics
from mmer_jax.checkpoint import Finished, load_final
from mmer_jax.data.corpus import Corpus, CorpusSpec
from mmer_jax.data.noise import NoiseDraw
from mmer_jax.data.protocols import RATES, Condition, condition_name, effective_rate
from mmer_jax.experiment import Experiment, GroupArrays
from mmer_jax.results import Result
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
      workdir: parameters are read from it; invariants.npz is written to it.
    """
    patterns = needed_patterns(conditions)
    stage = experiment.stages(trials[0].point)[-1]
    programs = experiment.programs(trials[0].point, stage)
    results: list[Result] = []
    for group in dict.fromkeys(done[trial.key].group for trial in trials):
        mine = [trial for trial in trials if done[trial.key].group == group]
        stored = load_final(workdir, group)
        for start in range(0, len(mine), width):
            part = mine[start : start + width]
            arrays = GroupArrays(experiment, Group(tuple(part), width))
            index = np.array([done[trial.key].position for trial in part])
            trained = jax.tree.map(lambda leaf, i=index, a=arrays: a.on_trials(leaf[i]), stored)
            params = trained[stage.name]
            tests = [fold.test for fold in arrays.folds]
            rows = arrays.evaluation_tables(tests)
            data = arrays.trial_data(0)
            outputs = {
                draw: programs.predict(
                    params, data, experiment.feed, rows, patterns, experiment.noise(draw)
                )
                for draw in dict.fromkeys(draw for c in conditions for draw in c.noise)
            }
            for i, (trial, test) in enumerate(zip(part, tests, strict=True)):
                results += score_trial(
                    experiment.corpus,
                    trial,
                    test,
                    {draw: output[i, :, : len(test)] for draw, output in outputs.items()},
                    conditions,
                    method=experiment.config.method,
                )
            if stage.imagine and any(c.protocol == "pattern" for c in conditions):
                results += _imagination(experiment, stage, programs, part, trained, data, rows)
            if trials[0] in part:
                _save_invariants(workdir, experiment, programs, params, data, rows, tests[0])
    return results


def _imagination(experiment, stage, programs, trials, trained, data, rows) -> list[Result]:
    """How much of the variance of what is missing is imagined, by pattern."""
    corpus, size = experiment.corpus, experiment.config.eval.batch_size
    data = programs.prepare(trained, data, experiment.feed, size, len(corpus))
    shares = programs.imagination(trained[stage.name], data, experiment.feed, rows)
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
        for trial, by_pattern in zip(trials, shares, strict=False)  # the others only pad
        for pattern, share in zip(programs.patterns, by_pattern, strict=True)
        if np.isfinite(share)  # not where the corpus itself lacks what the pattern takes away
    ]


def _save_invariants(workdir, experiment, programs, params, data, rows, test) -> None:
    """invariants.npz: the first trial's invariant features of some test utterances.

    Of several tasks it has the first one's labels; -1 where there is none.
    """
    corpus = experiment.corpus
    some = rows[: -(-PICTURED // rows.shape[2])]
    features = programs.invariants(params, data, experiment.feed, some)
    if features is None:
        return
    chosen = test[: min(PICTURED, features.shape[1])]
    complete = corpus.present[chosen].all(axis=1)
    np.savez_compressed(
        workdir / "invariants.npz",
        features=features[0, : len(chosen)][complete].astype(np.float16),
        labels=corpus.labels[chosen, 0][complete],
        modalities=np.array(corpus.spec.names),
        classes=np.array(corpus.spec.tasks[0].classes, dtype=str),
    )


def needed_patterns(conditions: Sequence[Condition]) -> np.ndarray:
    """[K, M] bool: every pattern that occurs in the conditions' masks.

    A prediction depends on what an utterance has left and on nothing else, so these K cover any
    number of rates and draws: with three modalities at most 7.
    """
    size = conditions[0].available.shape[-1]
    codes = np.unique(np.concatenate([np.unique(_codes(c.available)) for c in conditions]))
    return (codes[:, None] >> np.arange(size)) & 1 == 1


def score_trial(
    corpus: Corpus,
    trial: Trial,
    rows: np.ndarray,
    outputs: Mapping[NoiseDraw | None, np.ndarray],
    conditions: Sequence[Condition],
    *,
    method: str,
    split: str = "test",
) -> list[Result]:
    """Results of one trial; the draws of a condition are scored together.

    Args:
      corpus: for labels and names.
      rows: [n] rows that were scored.
      outputs: for each noise of the conditions [K, n, C] logits (or [K, n, 1] values) under
        `needed_patterns(conditions)`.
      conditions: what to score.
    """
    index = {int(code): k for k, code in enumerate(_codes(needed_patterns(conditions)))}
    results = []
    for condition in conditions:
        codes = _codes(condition.available[:, rows])
        which = np.vectorize(index.__getitem__, otypes=[np.intp])(codes)
        output = np.stack(  # [draws, n, C]
            [
                outputs[d][k, np.arange(len(rows))]
                for d, k in zip(condition.noise, which, strict=True)
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

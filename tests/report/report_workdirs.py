"""Workdirs as a run leaves them, made from numbers instead of training."""

import csv
import itertools
import json
import pathlib

import numpy as np

from mmer_jax.metrics import classification_scores, regression_scores
from mmer_jax.results import FIELDS

ROOT = pathlib.Path(__file__).parent.parent.parent
MODALITIES = ("audio", "text", "visual")
CLASSES = ("angry", "happy", "neutral", "sad")
RATES = tuple(f"{rate / 10:.1f}" for rate in range(8))


def patterns(modalities):
    """Every non-empty proper subset, single modalities first, then the full one."""
    subsets = [
        "+".join(subset)
        for size in range(1, len(modalities) + 1)
        for subset in itertools.combinations(modalities, size)
    ]
    return subsets[:-1], subsets[-1]


class Workdir:
    """Collects lines and writes the files of a workdir."""

    def __init__(self, path, method="ifmmin", *, dataset="iemocap", classes=CLASSES, **changes):
        self.path, self.method, self.dataset, self.classes = path, method, dataset, classes
        self.modalities = changes.pop("modalities", MODALITIES)
        self.rows = []
        self.config = {
            "config": {
                "method": method,
                "data.label": "emotion4",
                "data.modalities": list(self.modalities),
                "data.splits": "session_speaker",
            }
            | changes.pop("config", {}),
            "corpus": {
                "name": dataset,
                "fingerprint": changes.pop("fingerprint", "f00d"),
                "utterances": 1000,
                "modalities": {name: [8, 1] for name in self.modalities},
                "classes": list(classes),
            },
        }
        self.evaluated = {"trials": ["point 0"], "masks": changes.pop("masks", {"rate": "abc"})}
        assert not changes, changes
        path.mkdir(parents=True, exist_ok=True)

    def add(self, trial, protocol, condition, scores, n=100):
        """Scores of one trial under one condition: metric -> value."""
        for metric, value in scores.items():
            text = str(value) if isinstance(value, (int, str)) else f"{value:.6f}"
            row = (self.method, self.dataset, *trial, "test", protocol, condition, metric, text, n)
            self.rows.append(row)

    def add_confusion(self, trial, protocol, condition, confusion):
        """A confusion matrix with the scores that follow from it."""
        scores = classification_scores(np.asarray(confusion))
        for (i, t), (j, p) in itertools.product(enumerate(self.classes), repeat=2):
            scores[f"confusion:{t}>{p}"] = int(confusion[i][j])
        self.add(trial, protocol, condition, scores, n=int(np.sum(confusion)))

    def write(self):
        write_csv(self.path / "results.csv", FIELDS, self.rows)
        (self.path / "config.json").write_text(json.dumps(self.config))
        (self.path / "evaluated.json").write_text(json.dumps(self.evaluated))
        return self.path


def write_csv(path, header, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def full_workdir(
    path, method="ifmmin", *, skill=0.6, folds=3, seeds=2, seed=0, extras=True, **changes
):
    """A workdir with every protocol, training curves, a sweep and invariants.

    Args:
      skill: recall with all modalities.
      extras: whether there are noise, dialogue and imbalanced rows, a sweep and invariants.
    """
    workdir = Workdir(path, method, **changes)
    rng = np.random.default_rng(seed)
    for trial in itertools.product(range(folds), range(seeds)):
        _add_trial(workdir, trial, skill + 0.03 * rng.normal(), rng, extras)
    workdir.write()
    points = 4 if extras else 1
    _write_metrics(path, skill, folds, seeds, points, rng)
    if extras:
        _write_sweep(path, skill, folds, seeds, points, rng)
        _write_invariants(path, workdir, rng)
    return path


def _add_trial(workdir, trial, skill, rng, extras):
    missing, full = patterns(workdir.modalities)

    def add(protocol, condition, quality, n=160):
        if workdir.classes:
            confusion = _confusion(len(workdir.classes), quality, n, rng)
            workdir.add_confusion(trial, protocol, condition, confusion)
        else:
            truth = np.random.default_rng(trial[0]).normal(size=n)
            guess = truth + rng.normal(size=n) / quality
            workdir.add(trial, protocol, condition, regression_scores(truth, guess), n)

    add("full", full, skill)
    for i, pattern in enumerate(missing):
        add("pattern", pattern, skill * (0.72 + 0.04 * i))
    protocols = ("rate", "dialogue_rate") if extras else ("rate",)
    for protocol, rate in itertools.product(protocols, RATES):
        add(protocol, rate, skill * (1 - 0.45 * float(rate) ** 1.3), n=800)
        effective = min(float(rate), 0.667) * 0.97
        workdir.add(trial, protocol, rate, {"effective_rate": effective})
    if not extras:
        return
    for condition in ("audio=0.1+text=0.5+visual=0.9", "audio=0.9+text=0.5+visual=0.1"):
        add("imbalanced", condition, skill * 0.8)
        workdir.add(trial, "imbalanced", condition, {"effective_rate": 0.47})
    for kind, level in itertools.product(("gaussian", "dropout"), (0, 5, 10, 20, 40)):
        add("noise", f"{kind}:{level}", skill * (1 - 0.008 * level))


def _confusion(n_classes, quality, n, rng):
    support = np.full(n_classes, n // n_classes) + np.arange(n_classes)
    rest = (1 - quality) / (n_classes - 1)
    chances = np.full((n_classes, n_classes), rest) + np.eye(n_classes) * (quality - rest)
    chances = np.clip(chances * rng.uniform(0.7, 1.3, chances.shape), 1e-3, None)
    chances /= chances.sum(axis=1, keepdims=True)
    return np.stack([rng.multinomial(s, p) for s, p in zip(support, chances, strict=True)])


def _write_metrics(path, skill, folds, seeds, points, rng):
    lines = []
    cases = itertools.product(
        range(points), (("utt_shared", 12), ("ifmmin", 20)), range(folds), range(seeds)
    )
    for point, (stage, epochs), fold, seed in cases:
        for epoch in range(1, epochs + 1):
            record = {
                "group": "0",
                "trial": f"point {point}",
                "stage": stage,
                "epoch": epoch,
                "fold": fold,
                "seed": seed,
                "loss": float(0.4 + 2 * np.exp(-epoch / 5) + 0.05 * rng.normal() + point),
                "validation_score": float(
                    skill * (1 - np.exp(-epoch / 3)) + 0.01 * rng.normal() - 0.05 * point
                ),
            }
            lines.append(json.dumps(record) + "\n")
    (path / "metrics.jsonl").write_text("".join(lines))


def _write_sweep(path, skill, folds, seeds, points, rng):
    header = ["point", "fold", "seed", "validation_score", "best_epoch", "chosen"]
    header += ["stages.ifmmin.learning_rate", "stages.ifmmin.dropout", "model.pooling"]
    rows = []
    for point, fold, seed in itertools.product(range(points), range(folds), range(seeds)):
        values = [
            (1e-4, 1e-3)[point % 2] * (1 + 9 * (point // 2)),
            (0.3, 0.4, 0.5, 0.6)[point],
            "maxpool",
        ]
        score = f"{skill - 0.05 * point + 0.01 * rng.normal():.6f}"
        rows.append([point, fold, seed, score, 7, int(point == 0), *values])
    write_csv(path / "sweep.csv", header, rows)


def _write_invariants(path, workdir, rng, n=300, width=16):
    labels = rng.integers(max(len(workdir.classes), 1), size=n)
    if not workdir.classes:
        labels = rng.normal(size=n).astype(np.float32)
    centres = rng.normal(size=(max(len(workdir.classes), 1), width)) * 1.5
    shift = rng.normal(size=(len(workdir.modalities), width)) * 0.6
    index = labels if workdir.classes else np.zeros(n, int)
    features = centres[index][:, None] + shift + rng.normal(size=(n, len(shift), width))
    np.savez(
        path / "invariants.npz",
        features=features.astype(np.float32),
        labels=labels,
        modalities=np.array(workdir.modalities),
        classes=np.array(workdir.classes, dtype=str),
    )

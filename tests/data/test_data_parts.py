"""Patterns, normalisation and the synthetic corpus."""

import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mmer_jax.data.missing import condition_name, missing_patterns
from mmer_jax.data.normalize import fold_statistics
from mmer_jax.data.synthetic import make_synthetic
from mmer_jax.errors import UserError


@pytest.mark.parametrize("n", [2, 3, 5])
def test_patterns_are_all_proper_subsets(n):
    patterns = missing_patterns(n)
    assert len(patterns) == 2**n - 2 == len({tuple(p) for p in patterns})
    assert patterns.any(axis=1).all() and not patterns.all(axis=1).any()
    assert (np.diff(patterns.sum(axis=1)) >= 0).all()


def test_condition_names_follow_the_config_order():
    names = [condition_name(p, ("a", "t", "v")) for p in missing_patterns(3)]
    assert names == ["a", "t", "v", "a+t", "a+v", "t+v"]


def test_statistics_are_those_of_the_training_steps(corpus):
    rows = [np.arange(0, 100), np.arange(50, 240)]
    statistics = fold_statistics(corpus, rows)
    everything = corpus.read(np.arange(len(corpus)))
    for fold, chosen in enumerate(rows):
        for name in corpus.spec.names:
            x = everything[name][chosen].astype(np.float64)
            if name in corpus.lengths:
                steps = np.arange(x.shape[1]) < corpus.lengths[name][chosen][:, None]
                x = x[steps]
            np.testing.assert_allclose(statistics[name][0][fold], x.mean(0), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(statistics[name][1][fold], x.std(0), rtol=1e-4)


def test_rows_outside_training_and_missing_rows_do_not_count(corpus):
    present = corpus.present.copy()
    present[:20, 2] = False
    partly = dataclasses.replace(corpus, present=present)
    mean, std = fold_statistics(partly, [np.arange(60)])["visual"]
    x = corpus.read(np.arange(20, 60))["visual"]
    np.testing.assert_allclose(mean[0], x.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(std[0], x.std(0), rtol=1e-4)


def test_normalisation_can_be_limited(corpus):
    mean, std = fold_statistics(corpus, [np.arange(50)], "audio,text")["visual"]
    assert not mean.any() and (std == 1).all()
    with pytest.raises(UserError, match="normalize names .'face'."):
        fold_statistics(corpus, [np.arange(50)], "face")


def test_synthetic_modalities_are_complementary_and_correlated():
    corpus = make_synthetic(n_utterances=1500, seed=1)
    features = corpus.read(np.arange(len(corpus)))
    x = {}
    for name, values in features.items():
        if name in corpus.lengths:
            values = values.sum(axis=1) / corpus.lengths[name][:, None]
        x[name] = (values - values.mean(0)) / values.std(0)
    train, test = np.arange(0, 1000), np.arange(1000, 1500)

    def accuracy(*names):
        both = np.concatenate([x[name] for name in names], axis=1)
        model = LogisticRegression(max_iter=500).fit(both[train], corpus.labels[train, 0])
        return model.score(both[test], corpus.labels[test, 0])

    single = {name: accuracy(name) for name in x}
    together = accuracy(*x)
    assert together > max(single.values()) + 0.02  # each adds something
    # ... and partly tells what the others would have said.
    a, b = x["audio"], x["visual"]
    weights = np.linalg.lstsq(a[train], b[train], rcond=None)[0]
    residual = ((a[test] @ weights - b[test]) ** 2).mean(0) / b[test].var(0)
    assert residual.min() < 0.8


def test_synthetic_is_a_function_of_its_seed():
    first, again = make_synthetic(n_utterances=50), make_synthetic(n_utterances=50)
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != make_synthetic(n_utterances=50, seed=1).fingerprint

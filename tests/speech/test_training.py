"""The training loop: the shipped configuration shrunk, resumed, and on several devices."""

import jax
import numpy as np
import pytest
from rich.console import Console
from speech_corpora import tiny_config

from mmer_jax.checkpoint import load_final
from mmer_jax.errors import UserError
from mmer_jax.interrupt import Interrupted
from mmer_jax.speech import training
from mmer_jax.speech.recogniser import load_recogniser


@pytest.fixture(scope="module")
def config(spoken, one_width, tmp_path_factory):
    return tiny_config(spoken, tmp_path_factory.mktemp("cache"))


def run(config, workdir):
    training.train(config, workdir, Console(quiet=True))
    return load_final(workdir, "recogniser")["recogniser"]


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """(parameters, workdir) of an uninterrupted run."""
    workdir = tmp_path_factory.mktemp("whole")
    return run(config, workdir), workdir


def same(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **tolerance)


def test_a_run_leaves_scores_a_scale_and_a_recogniser(whole):
    _, workdir = whole
    lines = (workdir / "scores.csv").read_text().splitlines()
    assert {line.split(",")[2] for line in lines[1:]} == {
        *("per_greedy", "per_beam", "boundary_ms", "boundary_close", "auc_l1_l2")
    }
    assert (workdir / "scaling.json").exists() and (workdir / "report" / "goodness.png").exists()
    recogniser = load_recogniser(workdir)
    posteriors = recogniser.log_posteriors(np.zeros((1, 9, 80), np.float32), np.array([9]))
    assert posteriors.shape == (1, 5, 41)


def test_a_resumed_run_ends_exactly_like_an_uninterrupted_one(config, whole, tmp_path, monkeypatch):
    validate = training.Training._validate
    calls = []

    def stopped(self, *args):
        calls.append(1)
        if len(calls) == 2:
            raise Interrupted(15)
        return validate(self, *args)

    monkeypatch.setattr(training.Training, "_validate", stopped)
    with pytest.raises(Interrupted):
        run(config, tmp_path)
    monkeypatch.undo()
    resumed = run(config, tmp_path)
    same(resumed, whole[0], rtol=0, atol=0)
    assert (tmp_path / "scores.csv").read_text() == (whole[1] / "scores.csv").read_text()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


@pytest.mark.slow
def test_the_number_of_devices_does_not_matter(config, whole, tmp_path):
    config.mesh.devices = 8
    try:
        same(run(config, tmp_path), whole[0], rtol=1e-3, atol=1e-4)
    finally:
        config.mesh.devices = 1


@pytest.mark.slow
def test_seeds_train_side_by_side_as_they_do_alone(config, whole, tmp_path):
    config.trials.seeds = 2
    try:
        both = run(config, tmp_path)
    finally:
        config.trials.seeds = 1
    same(jax.tree.map(lambda x: x[:1], both), whole[0], rtol=1e-3, atol=1e-4)
    assert load_recogniser(tmp_path, seed=1).fingerprint != load_recogniser(tmp_path).fingerprint


def test_another_configuration_may_not_go_on_in_a_workdir(config, whole):
    config.model.hidden = 6
    try:
        with pytest.raises(UserError, match="model.hidden there 8, here 6"):
            run(config, whole[1])
    finally:
        config.model.hidden = 8


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("method", "tts", "method is 'tts'; choose one of: recogniser"),
        ("data.source", "cloud", "data.source is 'cloud'"),
        ("intensity.scaling", "log", "intensity.scaling is 'log'"),
        ("intensity.quantile", 0.5, "intensity.quantile is 0.5"),
        ("stages.recogniser.batch_size", 0, "stages.recogniser.batch_size is 0"),
    ],
)
def test_bad_values_are_refused(spoken, tmp_path, key, value, message):
    config = tiny_config(spoken, tmp_path)
    with config.unlocked():
        config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message):
        run(config, tmp_path / "work")


def test_a_corpus_without_l1_trains_no_recogniser(spoken, tmp_path):
    text = (spoken / "utterances.csv").read_text()
    only = [line for line in text.splitlines() if not line.startswith("en")]
    broken = tmp_path / "l2"
    broken.mkdir()
    for name in ("audio", "alignment"):
        (broken / name).mkdir()
        for path in (spoken / name).glob("es*"):
            (broken / name / path.name).write_bytes(path.read_bytes())
    (broken / "utterances.csv").write_text("\n".join(only) + "\n")
    with pytest.raises(UserError, match="no L1 utterance .empty accent. in split 'train'"):
        run(tiny_config(broken, tmp_path / "cache"), tmp_path / "work")

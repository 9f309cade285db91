"""Trials that diverge: what is named, that the others go on unharmed, and that results say so."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import shrunk, train

from configs import demo, utt_fusion
from mmer_jax import divergence
from mmer_jax.checkpoint import finished_trials
from mmer_jax.divergence import Divergence
from mmer_jax.errors import UserError
from mmer_jax.interrupt import Interrupted
from mmer_jax.programs import Programs
from mmer_jax.report import write_report
from mmer_jax.sweep import load_sweep
from mmer_jax.trained import load_trained


def fusion(**overrides):
    """Three folds of one stage, 3 epochs each of 5 or 6 steps."""
    return shrunk(
        utt_fusion.get_config(),
        data__source="synthetic",
        data__label="emotion",
        data__splits="session",
        trials__folds=[0, 1, 2],
        stages__utt_fusion__constant_epochs=2,
        train__on_nonfinite="drop_trial",
        **overrides,
    )


def break_trial(monkeypatch, *, stage, position, epoch):
    """The trial's parameters are not finite when this epoch (0-based) begins."""
    original = Programs.train_epoch

    def train_epoch(self, state, trials, feed, units, validation, number):
        if self._stage.name == stage and number == epoch:
            broken = jax.tree.map(lambda p: p.at[position].set(jnp.nan), state.params)
            state = state._replace(params=broken)
        return original(self, state, trials, feed, units, validation, number)

    monkeypatch.setattr(Programs, "train_epoch", train_epoch)


def lines_of(workdir):
    """metrics.jsonl as a strict reader has it."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    return train(fusion(), workdir)[0]


def of_folds(results, *folds):
    return [result for result in results if result.fold in folds]


# ---- what is found in an epoch's record ----


def record(**changes):
    """Of two trials that are finite, but for `changes`."""
    values = {"task": 1.0, "cmd": 1.0, "loss": 1.0, "gradient_norm": 1.0, "validation_score": 0.5}
    values |= {f"not_finite/{name}": 0 for name in ("task", "cmd", "loss", "gradient_norm")}
    values |= {"best_score": 0.5, "best_epoch": 1, "step": 12}
    made = {name: np.array([value, value]) for name, value in values.items()}
    for name, value in changes.items():
        made[name.replace("__", "/")][1] = value
    return made


def test_the_first_step_and_its_own_terms_are_named():
    """The loss is their sum, the gradient follows, and what comes later does not matter."""
    nan = float("nan")
    found = divergence.find(
        "s",
        3,
        record(task=nan, cmd=nan, loss=nan, gradient_norm=nan)
        | {
            "not_finite/task": np.array([0, 9]),
            "not_finite/cmd": np.array([0, 10]),
            "not_finite/loss": np.array([0, 9]),
            "not_finite/gradient_norm": np.array([0, 9]),
        },
    )
    assert found == {1: Divergence("s", 3, 9, ("task",), 2)}
    assert str(found[1]) == "task is not finite at step 9 (epoch 3) of stage s"
    assert found[1].consequence == "the best epoch before it counts, epoch 2"


def test_gradients_alone_and_what_validation_finds():
    bad = record(gradient_norm=np.inf, not_finite__gradient_norm=4, best_epoch=-1)
    found = divergence.find("s", 1, bad)[1]
    assert (found.step, found.terms, found.lost) == (4, ("gradient_norm",), True)
    found = divergence.find("s", 2, record(validation_score=np.nan))[1]
    assert (found.step, found.terms) == (12, ("validation_score",))
    assert divergence.find("s", 1, record(best_score=-np.inf)) == {}


# ---- whole runs ----


@pytest.mark.parametrize("placement", ["device", pytest.param("stream", marks=pytest.mark.slow)])
def test_a_late_divergence_keeps_the_best_epoch_before(
    undisturbed, tmp_path, monkeypatch, placement
):
    """Also where an epoch is streamed in pieces; other trials' numbers stay to the digit."""
    break_trial(monkeypatch, stage="utt_fusion", position=1, epoch=2)
    budget = 8.0 if placement == "device" else 3e-4
    config = fusion(data__placement=placement, data__memory_budget_gb=budget)
    results, text = train(config, tmp_path)
    steps = {line["epoch"]: line["step"] for line in lines_of(tmp_path) if line["fold"] == 1}
    named = f"task is not finite at step {steps[2] + 1:.0f} (epoch 3) of stage utt_fusion"
    assert f"{named}, trial (fold 1, seed 0); the best epoch before it counts, epoch" in text
    assert of_folds(results, 0, 2) == of_folds(undisturbed, 0, 2)
    assert {result.fold for result in results} == {0, 1, 2}
    last = [line for line in lines_of(tmp_path) if line["epoch"] == 3]
    assert [line["task"] is None for line in last] == [False, True, False]
    assert json.loads((tmp_path / "evaluated.json").read_text())["diverged"][0].startswith(
        f"fold 1, seed 0: {named}"
    )


def test_a_trial_without_a_good_epoch_has_no_results(undisturbed, tmp_path, monkeypatch):
    break_trial(monkeypatch, stage="utt_fusion", position=1, epoch=0)
    results, text = train(fusion(), tmp_path)
    assert "at step 1 (epoch 1) of stage utt_fusion, trial (fold 1, seed 0); no epoch" in text
    assert results == of_folds(undisturbed, 0, 2)
    assert [line["epoch"] for line in lines_of(tmp_path) if line["fold"] == 1] == [1]
    assert [done.lost for done in finished_trials(tmp_path).values()] == [False, True, False]
    assert [member.fold for member in load_trained(tmp_path).members] == [0, 2]
    report = write_report(tmp_path / "r", [tmp_path]).read_text()
    assert "2 folds × 1 seed" in report
    assert "fold 1, seed 0: task is not finite at step 1" in report and "no scores" in report
    again, text = train(fusion(), tmp_path)  # neither trained nor scored again
    assert again == results and " epoch 1/3 " not in text and "diverged: fold 1" in text


def test_a_divergence_is_remembered_by_the_checkpoint(undisturbed, tmp_path, monkeypatch):
    break_trial(monkeypatch, stage="utt_fusion", position=1, epoch=1)
    original = Programs.train_epoch

    def stop(self, state, trials, feed, units, validation, number):
        if number == 2:
            raise Interrupted(15)
        return original(self, state, trials, feed, units, validation, number)

    with monkeypatch.context() as patched:
        patched.setattr(Programs, "train_epoch", stop)
        with pytest.raises(Interrupted):
            train(fusion(), tmp_path)
    results, text = train(fusion(), tmp_path)
    assert "resuming after 2 epochs" in text and "(epoch 2) of stage utt_fusion; the best" in text
    assert "(epoch 3)" not in text and "training diverged" not in text
    assert of_folds(results, 0, 2) == of_folds(undisturbed, 0, 2)


def test_an_error_can_be_gone_on_from_without_the_trial(undisturbed, tmp_path, monkeypatch):
    break_trial(monkeypatch, stage="utt_fusion", position=0, epoch=1)
    config = fusion()
    config.train.on_nonfinite = "error"
    with pytest.raises(UserError, match="trial .fold 0, seed 0.*train.on_nonfinite=drop_trial"):
        train(config, tmp_path)
    results, text = train(fusion(), tmp_path)
    assert "resuming after 1 epochs" in text
    assert of_folds(results, 1, 2) == of_folds(undisturbed, 1, 2)


def test_nothing_is_left_where_every_trial_diverges(tmp_path):
    config = fusion(stages__utt_fusion__learning_rate=float("inf"))
    with pytest.raises(UserError, match="diverged in every trial"):
        train(config, tmp_path)
    assert not (tmp_path / "results.csv").exists()


def test_a_point_that_diverges_is_not_chosen_by_what_nan_predicts(tmp_path):
    """NaN logits predict the first class, which scores as well as a guess."""
    key = "stages.utt_fusion.learning_rate"
    (tmp_path / "sweep.py").write_text(
        f"def sweep():\n    yield {{{key!r}: float('inf')}}\n    yield {{{key!r}: 1e-9}}\n"
    )
    points = load_sweep(tmp_path / "sweep.py", fusion())
    _, text = train(fusion(), tmp_path / "w", points=points)
    assert "chosen by validation: point 1" in text
    scores = [done.validation_score for done in finished_trials(tmp_path / "w").values()]
    assert scores[:3] == [-np.inf] * 3 and min(scores[3:]) > 0


@pytest.mark.slow
def test_a_student_of_a_lost_teacher_is_lost(tmp_path, monkeypatch):
    """With a good epoch before it, the teacher teaches as it was then."""

    def config():
        return shrunk(demo.get_config(), trials__folds=[0, 1, 2], train__on_nonfinite="drop_trial")

    whole, _ = train(config(), tmp_path / "whole")
    break_trial(monkeypatch, stage="utt_shared", position=0, epoch=0)
    break_trial(monkeypatch, stage="utt_shared", position=2, epoch=1)
    results, _ = train(config(), tmp_path / "w")
    assert {result.fold for result in results} == {1, 2}
    assert of_folds(results, 1) == of_folds(whole, 1)
    folds = [line["fold"] for line in lines_of(tmp_path / "w") if line["stage"] == "ifmmin"]
    assert folds == [1, 2] * 2
    done = finished_trials(tmp_path / "w")
    assert [entry.lost for entry in done.values()] == [True, False, False]
    assert done["{} fold 0 seed 0"].validation_score == -np.inf

"""Dialogues in the engine: what a trial reads, and that a prediction is of the dialogue alone."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import shrunk, train, trial_data

from configs import hardy
from mmer_jax import evaluate
from mmer_jax.data.feed import Feed
from mmer_jax.data.missing import missing_patterns
from mmer_jax.data.protocols import Condition
from mmer_jax.data.splits import Fold
from mmer_jax.data.synthetic import make_synthetic
from mmer_jax.data.units import Units, make_grouping
from mmer_jax.experiment import Experiment, GroupArrays
from mmer_jax.mesh import make_mesh
from mmer_jax.methods import make_stages
from mmer_jax.programs import Programs
from mmer_jax.sweep import single_point
from mmer_jax.trials import Group, fill_up, make_trials, stack_tables

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
VECTORS = {"vector_dims": (7, 5, 6), "sequence_dims": ()}


def config(**overrides):
    made = shrunk(hardy.get_config(), data__splits="session", data__source="synthetic", **overrides)
    with made.unlocked():
        made.data.label = "emotion"
        made.synthetic.update(VECTORS)
    return made


@pytest.fixture(scope="module")
def corpus():
    return make_synthetic(n_utterances=60, **VECTORS)


# ---- tables ----


@pytest.fixture(scope="module")
def mixed(corpus):
    """(arrays of two trials, corpus): dialogues that training, validation and test share."""
    labels = np.where(np.arange(60)[:, None] % 7 == 0, -1, corpus.labels)
    columns = corpus.columns | {
        "dialogue": np.array([f"d{i % 5}" for i in range(60)]),
        "turn": np.array([str(i // 5) for i in range(60)]),
    }
    corpus = dataclasses.replace(corpus, labels=labels, columns=columns)
    rows, labelled = np.arange(60), labels[:, 0] >= 0
    folds = []
    for shift in (0, 20):
        part = np.roll(np.repeat([0, 1, 2], [30, 10, 20]), shift)
        train, validation, test = (rows[(part == p) & labelled] for p in range(3))
        folds.append(Fold(train, validation, test, rows[(part == 0) & ~labelled]))
    made = config(eval__batch_size=30)
    points = single_point(made)
    trials = make_trials(points, 2)
    group = Group(tuple(trials), 3)
    return GroupArrays(Experiment(made, corpus, folds, [group]), group), corpus, folds


def test_training_reads_training_rows_alone(mixed):
    arrays, _, folds = mixed
    stage = arrays._experiment.stages(arrays.trials[0].point)[0]
    tables = arrays.training_tables(stage, 0)
    assert tables.rows.shape == tables.counted.shape == (1, 3, 32, 12)
    for t, fold in enumerate(folds):
        there = tables.rows[:, t][tables.rows[:, t] >= 0]
        assert set(there) == set(fold.train) | set(fold.context) and len(fold.context)
        assert set(tables.rows[:, t][tables.counted[:, t]]) == set(fold.train)
    assert (tables.rows[:, 2] == -1).all()  # a trial that only fills up


def test_evaluation_reads_whole_dialogues_and_scores_its_rows(mixed):
    arrays, _, folds = mixed
    stage = arrays._experiment.stages(arrays.trials[0].point)[-1]
    tables = arrays.evaluation_tables(stage, [fold.test for fold in folds])
    assert tables.rows.shape[2:] == (2, 12)  # 30 rows are two dialogues of twelve
    for t, fold in enumerate(folds):
        assert sorted(tables.rows[:, t][tables.counted[:, t]]) == list(fold.test)
        assert (tables.rows[:, t] >= 0).sum() == 60
        found = evaluate.places(tables, t, fold.test)
        np.testing.assert_array_equal(tables.rows[:, t].reshape(-1)[found], fold.test)


def test_what_is_prepared_for_training_has_seen_training_alone(mixed):
    arrays, _, folds = mixed
    stage = arrays._experiment.stages(arrays.trials[0].point)[-1]
    tables = arrays.prepare_tables(stage)
    for t, fold in enumerate(folds):
        rows, counted = tables.rows[:, t].reshape(-1, 12), tables.counted[:, t].reshape(-1, 12)
        assert sorted(rows[counted]) == list(range(60))
        mine = {*fold.train, *fold.context}
        for unit, counts in zip(rows, counted, strict=True):
            if mine & set(unit[counts]):
                assert set(unit) - {-1} <= mine
    trained = arrays.trained_rows()
    assert [set(np.flatnonzero(x)) for x in trained[:2]] == [set(f.train) for f in folds]


# ---- a prediction is of the dialogue ----


@pytest.fixture(scope="module")
def predictor(corpus):
    """predict(units, available) -> [K, rows of the units, C], by the engine's program."""
    stage = make_stages(shrunk(hardy.get_config()), corpus.spec)[-1]
    mesh = make_mesh(1, 32, n_devices=1)
    feed = Feed(corpus, mesh, placement="device", memory_budget=0)
    programs, data = Programs(stage, corpus.spec, mesh), trial_data(corpus, 1)
    first = make_stages(shrunk(hardy.get_config()), corpus.spec)[0]
    earlier = {first.name: jax.jit(jax.vmap(lambda key: first.init(key, {})))(data.key)}
    params = jax.jit(jax.vmap(stage.init))(data.key, earlier)

    def predict(units, available):
        tables = stack_tables([fill_up(units, 8)])
        outputs = programs.predict(params, data, feed, tables, available)[0]
        return outputs[:, evaluate.places(tables, 0, np.sort(units.rows[units.counted]))]

    return predict


EVERY = np.arange(60)
PATTERNS = missing_patterns(3)


def test_order_padding_and_neighbours_do_not_change_a_dialogue(predictor, corpus):
    grouping = make_grouping(corpus, "dialogue")
    units = grouping.units(EVERY, EVERY)
    expected = predictor(units, PATTERNS)
    turned = Units(units.rows[::-1, ::-1], units.counted[::-1, ::-1])
    np.testing.assert_allclose(predictor(turned, PATTERNS), expected, **CLOSE)
    longer = [(0, 0), (2, 3)]
    longer = Units(
        np.pad(units.rows, longer, constant_values=-1),
        np.pad(units.counted, longer, constant_values=False),
    )
    np.testing.assert_allclose(predictor(longer, PATTERNS), expected, **CLOSE)
    some = grouping.units(EVERY[units.rows[3][units.counted[3]]], EVERY)
    mine = np.sort(some.rows[some.counted])
    np.testing.assert_allclose(predictor(some, PATTERNS), expected[:, mine], **CLOSE)


def test_the_other_turns_do(predictor, corpus):
    whole = predictor(make_grouping(corpus, "dialogue").units(EVERY, EVERY), PATTERNS)
    alone = predictor(make_grouping(corpus, "dialogue", "none").units(EVERY, EVERY), PATTERNS)
    sizes = {d: (corpus.columns["dialogue"] == d).sum() for d in set(corpus.columns["dialogue"])}
    single = np.array([sizes[d] == 1 for d in corpus.columns["dialogue"]])
    np.testing.assert_allclose(alone[:, single], whole[:, single], **CLOSE)
    assert single.any() and abs(alone - whole)[:, ~single].max() > 1e-3


def test_what_counts_does_not_change_what_is_read(predictor, corpus):
    """Test utterances among context, and with everything counted."""
    grouping = make_grouping(corpus, "dialogue")
    everything = predictor(grouping.units(EVERY, EVERY), PATTERNS)
    some = np.arange(0, 60, 3)
    np.testing.assert_allclose(
        predictor(grouping.units(some, EVERY), PATTERNS), everything[:, some], **CLOSE
    )


def test_masks_of_every_row_equal_the_patterns_that_they_are(predictor, corpus):
    units = make_grouping(corpus, "dialogue").units(EVERY, EVERY)
    masks = np.broadcast_to(PATTERNS[:, None], (6, 60, 3))
    np.testing.assert_allclose(predictor(units, masks), predictor(units, PATTERNS), **CLOSE)


def test_a_mask_of_one_turn_changes_the_others_of_its_dialogue(predictor, corpus):
    grouping = make_grouping(corpus, "dialogue")
    units = grouping.units(EVERY, EVERY)
    masks = np.ones((9, 60, 3), bool)  # more than at once, of which the last is another
    dialogue = grouping.table[(grouping.table >= 0).sum(axis=1).argmax()]
    first, *others = dialogue[dialogue >= 0]
    masks[-1, first, 0] = False
    found = predictor(units, masks)
    assert found.shape[0] == 9
    np.testing.assert_allclose(found[:-1], np.broadcast_to(found[:1], found[:-1].shape), **CLOSE)
    changed = abs(found[-1] - found[0]).max(axis=-1) > 1e-5
    assert set(np.flatnonzero(changed)) == {first, *others}


def test_a_dialogue_with_nothing_left_is_zeros_to_the_joint_head(predictor, corpus):
    """The same for each of its turns, finite, and nothing to the other dialogues."""
    grouping = make_grouping(corpus, "dialogue")
    units, masks = grouping.units(EVERY, EVERY), np.ones((2, 60, 3), bool)
    sizes = (grouping.table >= 0).sum(axis=1)
    longest, single = grouping.table[sizes.argmax()], grouping.table[sizes.argmin()]
    assert sizes.min() == 1
    masked = np.concatenate([longest[longest >= 0], single[:1]])
    masks[1, masked] = False
    everything, found = predictor(units, masks)
    assert np.isfinite(found).all() and np.ptp(found[masked], axis=0).max() < 1e-6
    others = np.setdiff1d(EVERY, masked)
    np.testing.assert_allclose(found[others], everything[others], **CLOSE)
    assert abs(found - everything)[masked].max() > 1e-3


def test_needed_masks_are_the_different_ones_of_a_noise():
    mask = np.random.default_rng(0).random((3, 60, 3)) < 0.7
    conditions = [
        Condition("rate", "0.3", mask[:2], (None, None)),
        Condition("rate", "0.4", mask[1:], (None, None)),
    ]
    needed = evaluate.needed_masks(conditions, None)
    assert needed.shape == (3, 60, 3)
    for mine in mask:
        which = evaluate._which(mine, needed, np.array([4, 9]))
        np.testing.assert_array_equal(needed[which[0]], mine)


# ---- whole runs ----


def whole(workdir, **overrides):
    made = config(
        trials__folds=[0],
        eval__rates=(0.0, 0.5),
        eval__mask_draws=2,
        stages__hardy__learning_rate=1e-3,
        **overrides,
    )
    return train(made, workdir, report=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return whole(tmp_path_factory.mktemp("run"))


def check_conditions(results, text):
    found = {(r.protocol, r.condition): r for r in results if r.metric == "WA"}
    assert len(found) == 1 + 6 + 2
    n = found["full", "audio+text+visual"].n
    assert found["rate", "0.5"].n == 2 * n and found["pattern", "audio"].n == n
    assert found["rate", "0.0"].value == found["full", "audio+text+visual"].value
    assert "hardy on synthetic" in text


@pytest.mark.slow
def test_a_run_scores_every_utterance_under_every_condition(run):
    check_conditions(*run)


@pytest.mark.slow
def test_utterances_may_be_dialogues_of_their_own(tmp_path):
    check_conditions(*whole(tmp_path, data__dialogues="none", model__curriculum__k=0))


@pytest.mark.slow
def test_streaming_equals_device_placement(run, tmp_path):
    results, _ = whole(tmp_path, data__placement="stream", data__memory_budget_gb=1e-5)
    values = [[float(r.value) for r in found] for found in (run[0], results)]
    np.testing.assert_allclose(*values, atol=1e-6)


@pytest.mark.slow
def test_one_pattern_trains_a_model_for_it_alone(tmp_path):
    made = config(trials__folds=[0], train__patterns="audio+text", model__curriculum__k=0)
    results, _ = train(made, tmp_path)
    assert {r.condition for r in results if r.protocol == "pattern"} >= {"audio+text", "visual"}

"""EI²: what a prediction depends on, patterns and masks, ablations, imagination.

Whole runs and what a user meets: tests/test_conversations.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import all_rows, shrunk, tables, trial_data

from configs import ei2
from mmer_jax.data.feed import Feed
from mmer_jax.data.missing import full_pattern, missing_patterns
from mmer_jax.data.speakers import with_speakers
from mmer_jax.data.synthetic import make_synthetic
from mmer_jax.data.units import make_grouping
from mmer_jax.errors import UserError
from mmer_jax.mesh import make_mesh
from mmer_jax.methods import make_stages
from mmer_jax.programs import Programs, make_batch

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
HISTORY = 2


@pytest.fixture(scope="module")
def corpus():
    return with_speakers(
        make_synthetic(
            n_utterances=60,
            n_sessions=2,
            sequence_dims=((5, 4), (4, 6)),
            vector_dims=(3,),
            label=("emotion", "intent"),
        )
    )


def batch_of(corpus, units, patterns=None, data=None):
    """Units [U, L] of rows, the last of which counts, as a batch."""
    feed = Feed(corpus, make_mesh(1, 1, n_devices=1), placement="device", memory_budget=0)
    resident = next(feed.pieces(tables(np.zeros((1, 1, 1))))).resident
    counted = np.zeros(units.shape, bool)
    counted[:, -1] = units[:, -1] >= 0
    data = trial_data(corpus, 1) if data is None else data
    return make_batch(
        corpus.spec,
        resident,
        jax.tree.map(lambda x: x[0], data),
        *(jnp.asarray(units), jnp.asarray(units), jnp.asarray(counted)),
        missing_patterns(3) if patterns is None else patterns,
    )


@pytest.fixture(scope="module")
def parts(corpus):
    """(stage, parameters, compiled prediction, units [60, 3])."""
    *_, stage = make_stages(shrunk(ei2.get_config()), corpus.spec)
    first, _ = make_stages(shrunk(ei2.get_config()), corpus.spec)
    params = jax.jit(
        lambda key: stage.init(key, {"ei2_pretrain": first.init(jax.random.fold_in(key, 1), {})})
    )(jax.random.key(0))
    units = make_grouping(corpus, "history", history=HISTORY).table
    return stage, params, jax.jit(stage.predict), units


def last(outputs):
    """[K, U, C] of [K, U·L, C]."""
    return outputs.reshape(len(outputs), -1, HISTORY + 1, outputs.shape[-1])[:, :, -1]


# ---- what a prediction depends on ----


def test_batched_histories_equal_one_utterance_at_a_time(corpus, parts):
    _, params, predict, units = parts
    together = last(predict(params, batch_of(corpus, units)))
    for row in (0, 7, 31, 59):
        one = last(predict(params, batch_of(corpus, units[row : row + 1])))
        np.testing.assert_allclose(one[:, 0], together[:, row], **CLOSE)
    turned = last(predict(params, batch_of(corpus, units[::-1])))
    np.testing.assert_allclose(turned[:, ::-1], together, **CLOSE)


def test_no_turn_sees_a_later_one_nor_one_before_its_history(corpus, parts):
    """Each row of a dialogue is changed in turn; the units are as the corpus has them."""
    _, params, predict, units = parts
    dialogue = max(make_grouping(corpus, "dialogue").table, key=lambda rows: (rows >= 0).sum())
    rows = dialogue[dialogue >= 0][:5]
    batch = batch_of(corpus, units[rows])
    before = last(predict(params, batch))
    flat = units[rows].reshape(-1)
    for place, row in enumerate(rows):
        moved = {
            name: jnp.where((flat == row).reshape(-1, *[1] * (x.ndim - 1)), x + 1.0 * (x != 0), x)
            for name, x in batch.features.items()
        }
        after = last(predict(params, batch._replace(features=moved)))
        changed = abs(after - before).max(axis=(0, 2)) > 1e-6
        expected = [place <= other <= place + HISTORY for other in range(len(rows))]
        assert changed.tolist() == expected


def test_padding_never_changes_a_prediction(corpus, parts):
    _, params, predict, units = parts
    batch = batch_of(corpus, units[:20])
    expected = last(predict(params, batch))
    filled = {
        m.name: jnp.where(
            jnp.arange(m.max_steps)[None, :, None] < batch.lengths[m.name][:, None, None],
            batch.features[m.name],
            7.0,
        )
        for m in corpus.spec.modalities
        if m.is_sequence
    }
    more = batch._replace(features=batch.features | filled)
    np.testing.assert_allclose(last(predict(params, more)), expected, **CLOSE)
    longer = {
        name: jnp.pad(x, ((0, 0), (0, 3), (0, 0)), constant_values=5.0) if x.ndim == 3 else x
        for name, x in batch.features.items()
    }
    longer = batch._replace(features=longer)
    np.testing.assert_allclose(last(predict(params, longer)), expected, **CLOSE)
    # Turns that are not there, whatever stands in their place.
    none = units[:20, 0] < 0
    assert none.any()
    turns = jnp.asarray((units[:20] < 0).reshape(-1))
    noise = {
        name: jnp.where(turns.reshape(-1, *[1] * (x.ndim - 1)), 9.0, x)
        for name, x in batch.features.items()
    }
    speakers = jnp.where(turns, 1, batch.speakers)
    odd = batch._replace(features=noise, speakers=speakers)
    np.testing.assert_allclose(last(predict(params, odd)), expected, **CLOSE)


def test_the_order_of_turns_and_who_speaks_matter(corpus, parts):
    _, params, predict, units = parts
    full = units[(units >= 0).all(axis=1)][:10]
    batch = batch_of(corpus, full)
    expected = last(predict(params, batch))
    swapped = last(predict(params, batch_of(corpus, full[:, [1, 0, 2]])))
    assert abs(swapped - expected).max(axis=(0, 2)).min() > 1e-5
    others = last(predict(params, batch._replace(speakers=1 - batch.speakers)))
    assert abs(others - expected).max(axis=(0, 2)).min() > 1e-5


def test_what_a_pattern_takes_away_never_reaches_the_prediction(corpus, parts):
    _, params, predict, units = parts
    batch = batch_of(corpus, units[:20])
    expected = last(predict(params, batch))
    own = jnp.arange(60) % 3 == 2
    for k, pattern in enumerate(missing_patterns(3)):
        hidden = {
            name: x if there else jnp.where(own.reshape(-1, *[1] * (x.ndim - 1)), x + 7.0, x)
            for (name, x), there in zip(batch.features.items(), pattern, strict=True)
        }
        changed = last(predict(params, batch._replace(features=hidden)))
        np.testing.assert_allclose(changed[k], expected[k], **CLOSE)
    # The turns before are read with all that they have.
    moved = {name: x + 1.0 for name, x in batch.features.items()}
    there = (units[:20, 1] >= 0) if HISTORY else None
    changed = last(predict(params, batch._replace(features=moved)))
    assert (abs(changed - expected).max(axis=(0, 2))[there] > 1e-5).all()


def test_with_history_missing_patterns_are_masks_that_all_turns_share(corpus, parts):
    """Two variants that a pattern chooses from give what a mask of every row gives."""
    _, params, _, units = parts
    config = shrunk(ei2.get_config(), model__history_missing=True)
    *_, stage = make_stages(config, corpus.spec)
    assert stage.history_missing
    batch = batch_of(corpus, units[:20])
    predict = jax.jit(stage.predict)
    chosen = last(predict(params, batch))
    by_row = last(predict(params, batch._replace(patterns=None)))
    np.testing.assert_allclose(chosen, by_row, **CLOSE)
    hidden = {"text": batch.features["text"] + 7.0}
    changed = last(predict(params, batch._replace(features=batch.features | hidden)))
    without = ~missing_patterns(3)[:, 1]
    np.testing.assert_allclose(changed[without], chosen[without], **CLOSE)


# ---- training ----


def loss_of(stage, hyper):
    def loss(params, batch):
        return stage.loss(params, batch, jax.random.key(0), hyper)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def without_dropout(stage):
    return {k: jnp.float32(0 if k.endswith("dropout") else v) for k, v in stage.hyper.items()}


def test_turns_before_have_no_loss_and_every_network_learns(corpus, parts):
    stage, params, _, units = parts
    value = loss_of(stage, without_dropout(stage))
    batch = batch_of(corpus, units[:20])
    (total, terms), gradient = value(params, batch)
    np.testing.assert_allclose(total, terms["task/emotion"] + terms["task/intent"], rtol=1e-6)
    before = (jnp.arange(60) % 3 < 2)[:, None]
    other = batch._replace(labels=jnp.where(before, 3 - batch.labels, batch.labels))
    assert value(params, other)[0][0] == total
    for name, network in gradient.items():
        leaves = jax.tree.leaves(network)
        assert all(np.isfinite(leaf).all() for leaf in leaves)
        assert max(abs(leaf).max() for leaf in leaves) > 0, name
    nothing = batch._replace(available=jnp.zeros_like(batch.available))
    leaves = jax.tree.leaves(value(params, nothing)[1])
    assert all(np.isfinite(leaf).all() for leaf in leaves)


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ({"model__history": 0}, {"context"}),
        ({"model__interaction": False}, {"task0_interaction", "task1_interaction"}),
        ({"model__second_attention": False}, set()),
        ({"model__gate": False}, set()),
    ],
)
def test_ablations_leave_out_what_they_name(corpus, parts, change, gone):
    _, params, _, _ = parts
    config = shrunk(ei2.get_config(), stages__ei2__init_from_pretrained=False, **change)
    (stage,) = make_stages(config, corpus.spec)
    shapes = jax.eval_shape(stage.init, jax.random.key(0), {})
    assert set(params) - set(shapes) == gone and set(shapes) <= set(params)
    second = "second" in shapes.get("task0_interaction", {})
    assert second == (
        change not in ({"model__interaction": False}, {"model__second_attention": False})
    )
    assert stage.unit == ("utterance" if "context" in gone else "history")


def test_one_task_alone_has_no_interaction(corpus):
    spec = type(corpus.spec)(corpus.spec.modalities, corpus.spec.tasks[:1], 2)
    _, stage = make_stages(shrunk(ei2.get_config()), spec)
    first, _ = make_stages(shrunk(ei2.get_config()), spec)
    earlier = {"ei2_pretrain": jax.eval_shape(first.init, jax.random.key(0), {})}
    shapes = jax.eval_shape(stage.init, jax.random.key(0), earlier)
    assert not any("interaction" in name or "task1" in name for name in shapes)


def test_what_ei2_cannot_do_is_explained(corpus):
    three = type(corpus.spec)(corpus.spec.modalities, corpus.spec.tasks + corpus.spec.tasks[:1])
    with pytest.raises(UserError, match="one or two tasks with classes; data.labels names emotion"):
        make_stages(shrunk(ei2.get_config()), three)
    changes = {"model__imagination": True, "stages__ei2__init_from_pretrained": False}
    with pytest.raises(UserError, match="needs the first stage, which says what is to be imagined"):
        make_stages(shrunk(ei2.get_config(), **changes), corpus.spec)
    with pytest.raises(UserError, match="fusion_heads=3 must divide model.embedding=8"):
        make_stages(shrunk(ei2.get_config(), model__fusion_heads=3), corpus.spec)


# ---- imagination ----


@pytest.mark.slow
def test_what_is_missing_is_imagined(corpus):
    config = shrunk(ei2.get_config(), model__imagination=True, model__history=0)
    first, stage = make_stages(config, corpus.spec)
    mesh = make_mesh(1, 32, n_devices=1)
    feed = Feed(corpus, mesh, placement="device", memory_budget=0)
    data = trial_data(corpus, 1)
    earlier = {first.name: Programs(first, corpus.spec, mesh).init(data.key, {}).params}
    rows = all_rows(corpus, 1)
    data = Programs(stage, corpus.spec, mesh).prepare(
        earlier, data, feed, rows, np.ones((1, len(corpus)), bool)
    )
    params = jax.jit(stage.init)(jax.random.key(1), jax.tree.map(lambda x: x[0], earlier))
    every = np.concatenate([missing_patterns(3), full_pattern(3)])
    batch = batch_of(corpus, np.arange(20, dtype=np.int32)[:, None], every, data)
    (total, terms), gradient = loss_of(stage, without_dropout(stage))(params, batch)
    weighted = terms["task"] + terms["imagination"] + 10 * terms["invariance"]
    np.testing.assert_allclose(total, weighted, rtol=1e-5)
    for name in ("task0_cascade", "task1_shared"):
        assert max(abs(leaf).max() for leaf in jax.tree.leaves(gradient[name])) > 0
    imagined, target = jax.jit(stage.imagine)(params, batch)
    assert imagined.shape == target.shape == (7, 20, 3, 16)
    # The target of what is missing is what the first stage says of it: the same in all patterns.
    text = ~every[:, 1]
    np.testing.assert_allclose(target[text, :, 1], target[text][:1, :, 1].repeat(3, 0), **CLOSE)
    changed = jax.tree.map(lambda x: x + 0.5, params["task0_cascade"])
    predict = jax.jit(stage.predict)
    moved = abs(predict({**params, "task0_cascade": changed}, batch) - predict(params, batch))
    assert moved[:6].max(axis=2).min() > 0 and not moved[6].any()

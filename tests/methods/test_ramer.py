"""RAMER's retrieval on a handmade database: who is found, what fills a slot, and when nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import shrunk, trial_data

from configs import ramer
from mmer_jax.data.corpus import CorpusSpec, Modality
from mmer_jax.data.feed import Feed
from mmer_jax.data.synthetic import make_synthetic
from mmer_jax.mesh import make_mesh
from mmer_jax.methods import make_stages
from mmer_jax.methods.ramer import RAMER
from mmer_jax.methods.stage import FILLING, OTHER, Batch
from mmer_jax.programs import Programs

A, B = 0, 1  # modalities
SIZE = 8


def made(**overrides) -> RAMER:
    spec = CorpusSpec((Modality("a", 3), Modality("b", 3)), ("x", "y"))
    return RAMER(shrunk(ramer.get_config(), **overrides), spec)


def direction(degrees):
    """Unit vectors in a plane of the hidden states."""
    x = np.zeros((*np.shape(degrees), SIZE), np.float32)
    x[..., 0], x[..., 1] = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return x


def related(model, hidden, database, *, present=None, has=None, row=None, rows=None) -> Batch:
    """Utterances [n, 2, h] under the patterns {a}, {b}, {a, b} and their neighbours."""
    n, count = len(hidden), len(database)
    present = np.ones((n, 2), bool) if present is None else np.array(present)
    patterns = np.array([[1, 0], [0, 1], [1, 1]], bool)
    rng = np.random.default_rng(0)
    batch = Batch(
        features={m: jnp.asarray(rng.normal(size=(n, 3)).astype(np.float32)) for m in "ab"},
        lengths={},
        present=jnp.asarray(present),
        labels=jnp.zeros(n, jnp.int32),
        weights=jnp.ones(n),
        available=jnp.asarray(patterns[:, None] & present[None]),
        noisy=None,
        frozen={"hidden": jnp.asarray(np.where(present[..., None], hidden, 0))},
        constants={
            "encoders": {},
            "database": {
                "hidden": jnp.asarray(database),
                "present": jnp.asarray(np.ones((count, 2), bool) if has is None else has),
                "row": jnp.asarray(np.full(count, OTHER) if row is None else row, jnp.int32),
            },
        },
        rows=jnp.asarray(np.full(n, -1) if rows is None else rows, jnp.int32),
    )
    return batch._replace(frozen=batch.frozen | jax.jit(model.relate)(batch))


def pair(a, b):
    """[n, 2, h] from the angles of modality a and of b."""
    return np.stack([direction(a), direction(b)], axis=1)


def test_neighbours_and_what_they_fill():
    model = made(model__neighbours=2)
    database = pair([0, 10, 90, 100], [0, 40, 180, 200]) * np.array([1, 2, 3, 4])[:, None, None]
    batch = related(model, pair([8], [190]), database)
    np.testing.assert_array_equal(batch.frozen["neighbours"][0], [[1, 0], [2, 3]])
    slots = jax.jit(model.slots)({}, batch)[:, 0]
    own = pair([8], [190])[0]
    np.testing.assert_allclose(slots[2], own, atol=1e-6)
    # {a}: b from rows 1 and 0; {b}: a from rows 2 and 3: sums of states of their own norms.
    expected = database[1, B] + database[0, B]
    np.testing.assert_allclose(slots[0, B], expected / np.linalg.norm(expected), atol=1e-6)
    np.testing.assert_allclose(slots[0, A], own[A], atol=1e-6)
    expected = database[2, A] + database[3, A]
    np.testing.assert_allclose(slots[1, A], expected / np.linalg.norm(expected), atol=1e-6)


def test_the_list_with_the_most_similar_last_neighbour_counts():
    model = made(model__neighbours=1)
    spec = CorpusSpec(tuple(Modality(m, 3) for m in "abc"), ("x", "y"))
    model = RAMER(shrunk(ramer.get_config(), model__neighbours=1), spec)
    hidden = np.stack([direction([0.0, 0.0])] * 3, axis=1)
    database = np.stack([direction([5, 60]), direction([80, 2]), direction([0, 90])], axis=1)
    batch = Batch(
        features={}, lengths={}, present=jnp.ones((2, 3), bool), labels=jnp.zeros(2, jnp.int32),
        weights=jnp.ones(2), available=jnp.array([[[True, True, False]] * 2]), noisy=None,
        frozen={"hidden": jnp.asarray(hidden)},
        constants={"database": {"hidden": jnp.asarray(database), "present": jnp.ones((2, 3), bool),
                                "row": jnp.full(2, OTHER)}},
        rows=jnp.full(2, -1),
    )  # fmt: skip
    batch = batch._replace(frozen=batch.frozen | model.relate(batch))
    np.testing.assert_array_equal(model.asking(batch), [[1, 1]])  # 2° is nearer than 5°
    np.testing.assert_array_equal(model.chosen(batch)[0], [[1], [1]])


def test_an_utterance_never_finds_itself():
    """By its row in the database; the released code drops the first hit, whoever that is."""
    database = pair([0, 10, 20, 30], [0, 10, 20, 30])
    given = {"row": [OTHER, 3, 7, FILLING - 1], "rows": [3, 5]}
    query = pair([10, 10], [10, 10])
    found = related(made(model__neighbours=2), query, database, **given).frozen["neighbours"]
    np.testing.assert_array_equal(found[0, A], [0, 2])
    np.testing.assert_array_equal(found[1, A], [1, 0])
    released = made(model__neighbours=2, quirks__drop_first=True)
    found = related(released, query, database, **given).frozen["neighbours"]
    np.testing.assert_array_equal(found[0, A], [0, 2])
    np.testing.assert_array_equal(found[1, A], [0, 2])


def test_released_similarities_grow_with_the_norm():
    """And hidden states reach the classifier as they are."""
    database, query = pair([0, 90], [0, 90]), pair([40], [1]) * np.array([9.0, 1.0])[None, :, None]
    for normalize, asks in ((True, B), (False, A)):
        model = made(model__neighbours=1, quirks__normalize_query=normalize)
        batch = related(model, query.astype(np.float32), database)
        assert model.asking(batch)[2, 0] == asks
        norm = np.linalg.norm(model.slots({}, batch)[0, 0, A])
        assert norm == pytest.approx(1 if normalize else 9, rel=1e-5)


def test_a_database_smaller_than_k():
    model = made(model__neighbours=5)
    batch = related(model, pair([0, 0], [0, 0]), pair([10], [30]), row=[4], rows=[4, 9])
    np.testing.assert_array_equal(batch.frozen["neighbours"][1, A], [0, -1, -1, -1, -1])
    assert (np.asarray(batch.frozen["neighbours"][0]) == -1).all()  # nobody but itself
    slots = jax.jit(model.slots)({}, batch)
    np.testing.assert_allclose(slots[0, 1, B], direction(30), atol=1e-6)
    assert (np.asarray(slots[0, 0, B]) == 0).all()
    assert np.isfinite(slots).all() and np.isneginf(batch.frozen["similarity"][0]).all()


def test_what_neighbours_lack_is_absent():
    """A neighbour without the missing modality does not count; if all lack it the slot is zero."""
    model = made(model__neighbours=2)
    database = pair([0, 5, 90, 95], [10, 20, 30, 40])
    has = np.array([[1, 0], [1, 1], [1, 0], [1, 0]], bool)
    batch = related(model, pair([1, 92], [0, 0]), database, has=has)
    np.testing.assert_array_equal(batch.frozen["neighbours"][:, A], [[0, 1], [2, 3]])
    slots = np.asarray(model.slots({}, batch))
    np.testing.assert_allclose(slots[0, 0, B], direction(20), atol=1e-6)
    assert (slots[0, 1, B] == 0).all()
    # Only utterances that have a modality are found by it.
    np.testing.assert_array_equal(batch.frozen["neighbours"][0, B], [1, -1])


def test_an_absent_modality_asks_nobody():
    model = made(model__neighbours=2)
    database = pair([0, 50], [0, 50])
    batch = related(model, pair([50, 0], [0, 0]), database, present=[[0, 1], [0, 0]])
    assert (np.asarray(batch.frozen["neighbours"][:, A]) == -1).all()
    assert model.asking(batch)[2, 0] == B
    assert (np.asarray(model.slots({}, batch))[:, 1] == 0).all()  # nothing is there at all


def test_no_retrieval_and_random_retrieval():
    database = pair(np.arange(0, 360, 6), np.arange(0, 360, 6))
    query = pair(np.zeros(200), np.zeros(200))
    batch = related(made(), query, database)
    slots = made(model__retrieval="none").slots({}, batch)
    assert (np.asarray(slots[0, :, B]) == 0).all() and (np.asarray(slots[0, :, A]) != 0).any()

    model, has = made(model__retrieval="random"), np.ones((60, 2), bool)
    has[30:, A] = False
    drawn = related(model, query, database, has=has, row=np.arange(60), rows=np.arange(200))
    rows = np.asarray(drawn.frozen["neighbours"])
    assert all(len(set(found)) == 5 for found in rows.reshape(-1, 5))
    assert rows[:, A].max() < 30 and set(rows[:, A].ravel()) == set(range(30))
    assert not (rows == np.arange(200)[:, None, None]).any()  # never itself
    counts = np.bincount(rows[60:, B].ravel(), minlength=60)
    assert counts.max() < 4 * counts.mean()
    again = related(model, query[::-1], database, has=has, row=np.arange(60))
    # By the utterance's features, whatever its hidden states.
    np.testing.assert_array_equal(again.frozen["neighbours"][60:], rows[60:])


def test_any_number_of_devices_finds_the_same():
    corpus = make_synthetic(n_utterances=50)
    first, stage = make_stages(shrunk(ramer.get_config()), corpus.spec)
    found = []
    for n_devices in (1, 8):
        mesh = make_mesh(2, 8, n_devices=n_devices)
        feed = Feed(corpus, mesh, placement="device", memory_budget=0)
        data = trial_data(corpus, 2)
        earlier = {first.name: Programs(first, corpus.spec, mesh).init(data.key, {}).params}
        train = np.stack([np.arange(0, 32).reshape(4, 8), np.arange(10, 42).reshape(4, 8)], axis=1)
        data = Programs(stage, corpus.spec, mesh).prepare(
            earlier, data, feed, 8, len(corpus), [(feed, train)]
        )
        found.append(data.frozen)
    np.testing.assert_array_equal(found[0]["neighbours"], found[1]["neighbours"])
    np.testing.assert_allclose(found[0]["hidden"], found[1]["hidden"], atol=1e-5)
    neighbours = np.asarray(found[0]["neighbours"])
    assert neighbours.shape == (2, 50, 3, 5)
    own = np.arange(50)[None] - np.array([[0], [10]])  # each trial's place of each utterance
    assert not (neighbours == own[..., None, None]).any()

"""RAMER's retrieval on a handmade database: who is found, what fills a slot, and when nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import all_rows, shrunk, tables, trial_data

from configs import ramer
from mmer_jax.data.corpus import CorpusSpec, Modality, Task
from mmer_jax.data.feed import Feed
from mmer_jax.data.synthetic import make_synthetic
from mmer_jax.mesh import make_mesh
from mmer_jax.methods import make_stages
from mmer_jax.methods.ramer import RAMER
from mmer_jax.methods.stage import FILLING, OTHER, Batch
from mmer_jax.programs import Programs

A, B = 0, 1  # modalities
SIZE = 8


class Compiled:
    """The method on two modalities; what it computes of a batch compiled once."""

    def __init__(self, **overrides):
        spec = CorpusSpec((Modality("a", 3), Modality("b", 3)), (Task("label", ("x", "y")),))
        model = RAMER(shrunk(ramer.get_config(), **overrides), spec)
        self.relate = jax.jit(model.relate)
        self.slots = jax.jit(lambda batch: model.slots({}, batch))
        self.asking = jax.jit(model.asking)
        self.study = jax.jit(model.study)


@functools.cache
def made(**overrides) -> Compiled:
    return Compiled(**{"model__neighbours": 2} | overrides)


def direction(degrees):
    """Unit vectors in a plane of the hidden states."""
    x = np.zeros((*np.shape(degrees), SIZE), np.float32)
    x[..., 0], x[..., 1] = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return x


def related(model, hidden, database, *, present=None, has=None, row=None, rows=None) -> Batch:
    """Utterances [n, 2, h] under the patterns {a}, {b}, {a, b} and their neighbours.

    Both are filled up, so that few programs are compiled.
    """
    n, size = max(4, len(hidden)), 64
    present = _filled(np.ones((len(hidden), 2)) if present is None else present, n, 0) > 0
    hidden = np.where(present[..., None], _filled(hidden, n, 0), 0)
    has = _filled(np.ones((len(database), 2)) if has is None else has, size, 0) > 0
    row = _filled(np.full(len(database), OTHER) if row is None else row, size, FILLING)
    rows = _filled([] if rows is None else rows, n, -1)
    patterns = np.array([[1, 0], [0, 1], [1, 1]], bool)
    rng = np.random.default_rng(0)
    batch = Batch(
        features={m: rng.normal(size=(n, 3)).astype(np.float32) for m in "ab"},
        lengths={},
        present=present,
        labels=np.zeros((n, 1), np.int32),
        weights=np.ones(n, np.float32),
        turns=np.ones((n, 1), bool),
        available=patterns[:, None] & present[None],
        patterns=None,
        noisy=None,
        frozen={"hidden": hidden.astype(np.float32)},
        constants={
            "encoders": {},
            "database": {
                "hidden": _filled(database, size, 0).astype(np.float32),
                "present": has,
                "row": row.astype(np.int32),
            },
        },
        rows=rows.astype(np.int32),
    )
    batch = jax.tree.map(jnp.asarray, batch)
    return jax.tree.map(np.asarray, batch._replace(frozen=batch.frozen | model.relate(batch)))


def _filled(x, n, value):
    x = np.asarray(x)
    return np.pad(x, [(0, n - len(x))] + [(0, 0)] * (x.ndim - 1), constant_values=value)


def pair(a, b):
    """[n, 2, h] from the angles of modality a and of b."""
    return np.stack([direction(a), direction(b)], axis=1)


def test_neighbours_and_what_they_fill():
    model = made()
    database = pair([0, 10, 90, 100], [0, 40, 180, 200]) * np.array([1, 2, 3, 4])[:, None, None]
    batch = related(model, pair([8], [190]), database)
    np.testing.assert_array_equal(batch.frozen["neighbours"][0], [[1, 0], [2, 3]])
    slots = model.slots(batch)[:, 0]
    own = pair([8], [190])[0]
    np.testing.assert_allclose(slots[2], own, atol=1e-6)
    # {a}: b from rows 1 and 0; {b}: a from rows 2 and 3: sums of states of their own norms.
    expected = database[1, B] + database[0, B]
    np.testing.assert_allclose(slots[0, B], expected / np.linalg.norm(expected), atol=1e-6)
    np.testing.assert_allclose(slots[0, A], own[A], atol=1e-6)
    expected = database[2, A] + database[3, A]
    np.testing.assert_allclose(slots[1, A], expected / np.linalg.norm(expected), atol=1e-6)


def test_the_list_with_the_most_similar_last_neighbour_counts():
    model = made()
    batch = related(model, pair([0], [0]), pair([5, 40, 90, 90], [90, 90, 2, 45]))
    assert model.asking(batch)[2, 0] == A  # 40° is nearer than 45°, though 2° is than 5°
    batch = related(model, pair([0], [0]), pair([5, 40, 90, 90], [90, 90, 2, 39]))
    assert model.asking(batch)[2, 0] == B


def test_an_utterance_never_finds_itself():
    """By its row in the database; the released code drops the first hit, whoever that is."""
    database = pair([0, 10, 20, 30], [0, 10, 20, 30])
    given = {"row": [OTHER, 3, 7, FILLING - 1], "rows": [3, 5]}
    query = pair([10, 10], [10, 10])
    found = related(made(), query, database, **given).frozen["neighbours"]
    np.testing.assert_array_equal(found[0, A], [0, 2])
    np.testing.assert_array_equal(found[1, A], [1, 0])
    released = made(quirks__drop_first=True)
    found = related(released, query, database, **given).frozen["neighbours"]
    np.testing.assert_array_equal(found[0, A], [0, 2])
    np.testing.assert_array_equal(found[1, A], [0, 2])


def test_released_similarities_grow_with_the_norm():
    """And hidden states reach the classifier as they are."""
    database, query = (
        pair([0, 50, 120], [0, 5, 180]),
        pair([20], [1]) * np.array([9, 1])[None, :, None],
    )
    for normalize, asks in ((True, B), (False, A)):
        model = made(quirks__normalize_query=normalize)
        batch = related(model, query, database)
        assert model.asking(batch)[2, 0] == asks
        norm = np.linalg.norm(model.slots(batch)[0, 0, A])
        assert norm == pytest.approx(1 if normalize else 9, rel=1e-5)


def test_a_database_smaller_than_k():
    model = made(model__neighbours=5)
    batch = related(model, pair([0, 0], [0, 0]), pair([10], [30]), row=[4], rows=[4, 9])
    np.testing.assert_array_equal(batch.frozen["neighbours"][1, A], [0, -1, -1, -1, -1])
    assert (np.asarray(batch.frozen["neighbours"][0]) == -1).all()  # nobody but itself
    slots = model.slots(batch)
    np.testing.assert_allclose(slots[0, 1, B], direction(30), atol=1e-6)
    assert (np.asarray(slots[0, 0, B]) == 0).all()
    assert np.isfinite(slots).all() and np.isneginf(batch.frozen["similarity"][0]).all()


def test_what_neighbours_lack_is_absent():
    """A neighbour without the missing modality does not count; if all lack it the slot is zero."""
    model = made()
    database = pair([0, 5, 90, 95], [10, 20, 30, 40])
    has = np.array([[1, 0], [1, 1], [1, 0], [1, 0]], bool)
    batch = related(model, pair([1, 92], [0, 0]), database, has=has)
    np.testing.assert_array_equal(batch.frozen["neighbours"][:2, A], [[0, 1], [2, 3]])
    slots = np.asarray(model.slots(batch))
    np.testing.assert_allclose(slots[0, 0, B], direction(20), atol=1e-6)
    assert (slots[0, 1, B] == 0).all()
    # Only utterances that have a modality are found by it.
    np.testing.assert_array_equal(batch.frozen["neighbours"][0, B], [1, -1])


def test_an_absent_modality_asks_nobody():
    model = made()
    database = pair([0, 50], [0, 50])
    batch = related(model, pair([50, 0], [0, 0]), database, present=[[0, 1], [0, 0]])
    assert (np.asarray(batch.frozen["neighbours"][:, A]) == -1).all()
    assert model.asking(batch)[2, 0] == B
    assert (np.asarray(model.slots(batch))[:, 1:] == 0).all()  # nothing is there at all


def test_no_retrieval_and_random_retrieval():
    database = pair(np.arange(0, 360, 6), np.arange(0, 360, 6))
    query = pair(np.zeros(200), np.zeros(200))
    batch = related(made(), query[:4], database)
    slots = made(model__retrieval="none").slots(batch)
    assert (np.asarray(slots[0, :, B]) == 0).all() and (np.asarray(slots[0, :, A]) != 0).any()

    model = made(model__retrieval="random", model__neighbours=5)
    has = np.ones((60, 2), bool)
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


def test_what_is_studied_are_the_neighbours_that_fill():
    """By their rows of the corpus; unlabelled ones by their own, which stand first."""
    model = made()
    database = pair([5, 40, 90, 90], [90, 90, 2, 39])
    given = {"row": [OTHER, OTHER, 3, 7], "rows": [3, 5]}
    batch = related(model, pair([0, 0], [0, 0]), database, **given)
    found = {name: np.asarray(x) for name, x in model.study(batch).items()}
    # {a}, {b}, {a, b}: b's last neighbour is nearer; the first utterance is row 3 itself.
    assert found["neighbours"][:, 0].tolist() == [[-2, -3], [7, -2], [-2, -3]]
    assert found["neighbours"][:, 1].tolist() == [[-2, -3], [3, 7], [3, 7]]
    cosines = np.cos(np.radians([40, 39, 39]))
    np.testing.assert_allclose(found["similarity"][:, 1], cosines, atol=1e-6)
    absent = related(model, pair([0], [0]), database, present=[[0, 1]], **given)
    found = model.study(absent)
    assert found["neighbours"][0, 0].tolist() == [-1, -1]
    assert np.isneginf(found["similarity"][0, 0])


@pytest.mark.slow
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
            earlier,
            data,
            feed,
            all_rows(corpus, 2, size=8),
            np.ones((2, len(corpus)), bool),
            [(feed, tables(train))],
        )
        found.append(data.frozen)
    np.testing.assert_array_equal(found[0]["neighbours"], found[1]["neighbours"])
    np.testing.assert_allclose(found[0]["hidden"], found[1]["hidden"], atol=1e-5)
    neighbours = np.asarray(found[0]["neighbours"])
    assert neighbours.shape == (2, 50, 3, 5)
    own = np.arange(50)[None] - np.array([[0], [10]])  # each trial's place of each utterance
    assert not (neighbours == own[..., None, None]).any()

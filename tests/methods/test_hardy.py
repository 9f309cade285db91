"""HARDY-MER: its stages on dialogues, its curriculum, and what must not leak into them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import all_rows, one_batch, shrunk, trial_data

from configs import hardy
from mmer_jax.config import base
from mmer_jax.data.corpus import CorpusSpec, Modality, Task
from mmer_jax.data.feed import Feed
from mmer_jax.data.synthetic import make_synthetic
from mmer_jax.data.units import make_grouping
from mmer_jax.errors import UserError
from mmer_jax.mesh import make_mesh
from mmer_jax.methods import make_stages
from mmer_jax.methods.hardy_curriculum import Curriculum
from mmer_jax.methods.hardy_networks import HardyNetworks, Turns
from mmer_jax.programs import Programs

K = 3
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def corpus():
    """60 utterances in 30 dialogues; visual is missing for some, also in dialogues that have it."""
    made = make_synthetic(n_utterances=60, vector_dims=(7, 5, 6), sequence_dims=())
    present = made.present.copy()
    present[::4, 2] = False
    return dataclasses.replace(made, present=present)


class Prepared:
    """The student's stage, and what the frozen stages have prepared for a fold."""

    def __init__(self, corpus, **overrides):
        config = shrunk(hardy.get_config(), **overrides)
        *before, self.stage = make_stages(config, corpus.spec)
        self.corpus, self.earlier = corpus, {}
        self.mesh = make_mesh(1, 32, n_devices=1)
        self.programs = Programs(self.stage, corpus.spec, self.mesh)
        self.data = trial_data(corpus, 1)
        for first in before:
            made = Programs(first, corpus.spec, self.mesh).init(self.data.key, self.earlier)
            self.earlier[first.name] = made.params

    def of(self, corpus, trained):
        """TrialData where the rows `trained` [N] are the fold's training utterances."""
        feed = Feed(corpus, self.mesh, placement="device", memory_budget=0)
        units = all_rows(corpus, 1, "dialogue")
        return self.programs.prepare(self.earlier, self.data, feed, units, trained[None])


@pytest.fixture(scope="module")
def prepared(corpus):
    return Prepared(corpus)


@pytest.fixture(scope="module")
def trained(corpus):
    """Sessions 1 to 4 train."""
    return corpus.columns["session"] != "0"


@pytest.fixture(scope="module")
def data(prepared, corpus, trained):
    return prepared.of(corpus, trained)


# ---- what the curriculum is made of ----


def test_neighbours_are_other_training_utterances_that_have_the_modality(data, corpus, trained):
    found = np.asarray(data.frozen["neighbours"][0])  # [N, 7, K]
    assert found.shape == (60, 7, K)
    rows, pattern, _ = np.nonzero(found >= 0)
    neighbours = found[found >= 0]
    assert len(neighbours) > 500 and trained[neighbours].all() and (neighbours != rows).all()
    visual = pattern == 2  # the pattern that leaves visual alone
    assert corpus.present[neighbours[visual], 2].all()
    nothing_left = ~corpus.present[:, 2]
    assert (found[nothing_left, 2] == -1).all()


def test_a_harder_utterance_has_more_neighbours(data):
    count = (np.asarray(data.frozen["neighbours"][0]) >= 0).sum(axis=-1)
    hardness = np.asarray(data.frozen["hardness"][0])
    assert 0.5 <= hardness.min() and hardness.max() < 1 and hardness.std() > 0.05
    has_some = count > 0
    expected = np.floor(K * hardness + 1)
    np.testing.assert_array_equal(count[has_some], expected[has_some])
    assert set(count[has_some]) == {2, 3}


def test_test_utterances_change_nothing_of_what_training_reads(prepared, data, corpus, trained):
    """Features a thousandfold and other labels: the same neighbours, hardness and database."""
    test = np.flatnonzero(~trained)

    class Marked:
        def stream(self, batches):
            batches = list(batches)
            for rows, features in zip(batches, corpus.source.stream(batches), strict=True):
                yield {
                    name: np.where(np.isin(rows, test)[:, None], 1000 * x, x)
                    for name, x in features.items()
                }

    labels = np.where(trained[:, None], corpus.labels, (corpus.labels + 1) % 4).astype(np.int32)
    marked = dataclasses.replace(corpus, source=Marked(), labels=labels)
    other = prepared.of(marked, trained)
    for name, tensor in data.constants.items():
        np.testing.assert_array_equal(tensor, other.constants[name])
        assert not np.asarray(tensor[0])[test].any()
    for name, tensor in data.frozen.items():
        np.testing.assert_array_equal(tensor[0][trained], other.frozen[name][0][trained])
        assert (np.asarray(tensor[0])[test] != np.asarray(other.frozen[name][0])[test]).any()


@pytest.mark.parametrize("n_trained", [1, 2])
def test_a_database_smaller_than_k_leaves_the_utterance_itself(prepared, corpus, n_trained):
    trained = np.zeros(60, bool)
    trained[[5, 11][:n_trained]] = True
    found = np.asarray(prepared.of(corpus, trained).frozen["neighbours"][0])
    assert set(found[5].ravel()) <= {-1, 11}
    assert (found[5] >= 0).any() == (n_trained == 2)
    assert ((found >= 0).sum(axis=-1) <= n_trained).all()


def test_without_hardness_everyone_has_all_neighbours(corpus, trained):
    prepared = Prepared(corpus, model__curriculum__hardness="off")
    assert [*prepared.earlier] == ["hardy_unimodal"]
    found = np.asarray(prepared.of(corpus, trained).frozen["neighbours"][0])
    count = (found >= 0).sum(axis=-1)
    assert set(count.ravel()) == {0, K} and (count[:, 6] == K).all()


def test_random_neighbours_are_different_training_utterances(corpus, trained):
    curriculum = {"model__curriculum__hardness": "off", "model__curriculum__retrieval": "random"}
    prepared = Prepared(corpus, **curriculum)
    found = np.asarray(prepared.of(corpus, trained).frozen["neighbours"][0])[:, 6]
    assert trained[found].all() and (found != np.arange(60)[:, None]).all()
    assert all(len(set(row)) == K for row in found)
    assert len(np.unique(found)) > 40


# ---- the networks under patterns ----


@pytest.fixture(scope="module")
def networks(corpus):
    config = shrunk(hardy.get_config())
    made = HardyNetworks(config.model, corpus.spec)
    return made, jax.jit(made.init_encoders)(jax.random.key(0))


@pytest.mark.parametrize("experts", [False, True])
def test_encoding_once_equals_encoding_every_mask(networks, corpus, data, experts):
    """Also of what is missing, which the measure of information reads."""
    networks, params = networks
    turns = Turns.of(one_batch(corpus, data, None, make_grouping(corpus, "dialogue")))
    turns = turns._replace(patterns=None), turns
    every, once = (
        jax.jit(lambda x, t=t: networks.encode(params, t._replace(features=x), experts=experts))(
            t.features
        )
        for t in turns
    )
    keys = np.asarray(turns[0].keys)
    np.testing.assert_allclose(np.asarray(once)[keys], np.asarray(every)[keys], **CLOSE)
    # What no turn of the dialogue has left is the same constant both ways.
    nowhere = np.broadcast_to(~keys.any(axis=2, keepdims=True), keys.shape)
    np.testing.assert_allclose(np.asarray(once)[nowhere], np.asarray(every)[nowhere], **CLOSE)


# ---- copies ----


class Hand:
    """A curriculum of known neighbours over one batch."""

    def __init__(self, corpus, data, neighbours, *, query_labels=False):
        self.networks = HardyNetworks(shrunk(hardy.get_config()).model, corpus.spec)
        grouping = make_grouping(corpus, "dialogue")
        batch = one_batch(corpus, data, None, grouping)
        rows = np.concatenate([np.full_like(grouping.table[:1], -1), grouping.table[:14]])
        self.rows = rows.reshape(-1)
        frozen = {"neighbours": jnp.asarray(neighbours)[jnp.maximum(self.rows, 0)]}
        self.batch = batch._replace(frozen=frozen)
        settings = hardy.get_config().model.curriculum
        self.curriculum = Curriculum(settings, self.networks, query_labels=query_labels)

    def copies(self):
        return self.curriculum.copies(self.batch, Turns.of(self.batch))


@pytest.mark.parametrize("query_labels", [False, True])
def test_a_copy_has_the_neighbours_features_labels_and_holes(corpus, data, query_labels):
    neighbours = np.full((60, 7, K), -1, np.int32)
    neighbours[:, :, 1] = (np.arange(60) + 7)[:, None] % 60
    hand = Hand(corpus, data, neighbours, query_labels=query_labels)
    hand.batch = hand.batch._replace(weights=hand.batch.weights.at[-8:].set(0.0))
    copies = hand.copies()
    batch = hand.batch
    own = Turns.of(batch).features
    features = np.asarray(copies.features)  # [U, 6, 3, L, F]
    assert features.shape[1:3] == (6, K)
    for c in (0, 2):  # nothing but themselves
        np.testing.assert_array_equal(features[:, :, c], np.repeat(own[:, None], 6, axis=1))
    flat = np.moveaxis(features[:, :, 1], 1, 0).reshape(6, -1, features.shape[-1])
    wanted = (hand.rows + 7) % 60
    counted = np.asarray(batch.weights) > 0
    database = np.asarray(data.constants["features"][0])
    for k in range(6):
        replaced = counted & np.asarray(batch.available[k].any(axis=-1))
        np.testing.assert_array_equal(flat[k, replaced], database[wanted[replaced]])
        still = ~replaced  # context, no utterance, or nothing of it is left
        np.testing.assert_array_equal(flat[k, still], np.asarray(own).reshape(flat[k].shape)[still])
    labels = np.asarray(copies.labels[:, 0, 1]).reshape(-1)[counted]
    stored = np.asarray(data.constants["labels"][0])[wanted[counted]]
    own_labels = np.asarray(batch.labels)[counted, 0]
    np.testing.assert_array_equal(labels, own_labels if query_labels else stored)
    assert (stored != own_labels).any()
    present = np.asarray(copies.present[:, 0, 1]).reshape(-1, 3)[counted]
    np.testing.assert_array_equal(
        present, np.asarray(data.constants["present"][0])[wanted[counted]]
    )
    pattern = np.array([False, True, True])
    left = np.asarray(copies.available[:, 5, 1]).reshape(-1, 3)[counted]
    np.testing.assert_array_equal(left, present & pattern)


def test_who_has_nothing_left_has_no_neighbours(corpus, data):
    """A pattern that leaves nothing must not find by what it has taken away."""
    hand = Hand(corpus, data, np.broadcast_to((np.arange(60) + 7)[:, None, None] % 60, (60, 7, K)))
    copies, batch = hand.copies(), hand.batch
    own = np.asarray(Turns.of(batch).features)
    features = np.asarray(copies.features[:, 2])  # visual alone
    left = np.asarray(batch.available[2].any(axis=-1)).reshape(batch.turns.shape)
    counted = np.asarray(batch.weights).reshape(left.shape) > 0
    same = (features == own[:, None]).all(axis=(1, 3))
    np.testing.assert_array_equal(same[counted], ~left[counted])
    assert (counted & ~left).any() and not np.asarray(copies.available[:, 2, 0])[~left].any()


def test_what_all_neighbours_lack_is_not_reconstructed(corpus, data, prepared):
    """Whatever stands in the database where they have nothing; without visual in any of them."""
    blind = np.flatnonzero(~corpus.present[:, 2])[:K]
    hand = Hand(corpus, data, np.broadcast_to(blind, (60, 7, K)))
    earlier = jax.tree.map(lambda x: x[0], prepared.earlier)
    params = prepared.stage.init(jax.random.key(0), earlier)
    hyper = {"dropout": None, "reconstruction_weight": 1.0}

    @jax.jit
    def loss(database):
        constants = hand.batch.constants | {"features": database}
        batch = hand.batch._replace(constants=constants)
        return prepared.stage.loss(params, batch, jax.random.key(0), hyper)[1]

    database = hand.batch.constants["features"]
    one, visual, audio = (
        loss(x) for x in (database, database.at[:, -6:].add(9.0), database.at[:, :7].add(9.0))
    )
    assert np.isfinite(one["reconstruction"]) and one == visual
    assert one["reconstruction"] != audio["reconstruction"]


def test_what_is_studied_are_the_nearest_of_the_available_modalities(data, corpus, trained):
    """At least five whatever K and hardness, hardness with both views; training has the first K."""
    curriculum = Curriculum(
        hardy.get_config().model.curriculum,
        HardyNetworks(shrunk(hardy.get_config()).model, corpus.spec),
        query_labels=False,
    )
    batch = one_batch(corpus, data, None, make_grouping(corpus, "dialogue"))
    found = jax.tree.map(np.asarray, jax.jit(curriculum.study)(batch))
    neighbours, rows = found["neighbours"], np.asarray(batch.rows)
    assert neighbours.shape == (6, len(rows), 5)
    curricula = np.asarray(data.frozen["neighbours"][0])
    hardness = np.asarray(data.frozen["hardness"][0])
    subsets = list(map(tuple, curriculum.subsets))
    for k, b in np.ndindex(6, len(rows)):
        mine, left = neighbours[k, b], np.asarray(batch.available[k, b])
        assert (mine >= 0).all() == left.any() == np.isfinite(found["hardness"][k, b])
        if left.any():
            assert trained[mine].all() and rows[b] not in mine and len(set(mine)) == 5
            place = subsets.index(tuple(left))
            chosen = [r for r in curricula[rows[b], place] if r >= 0]
            assert list(mine[: len(chosen)]) == chosen
            assert found["hardness"][k, b] == hardness[rows[b], place]


def test_copies_of_nothing_but_themselves_change_no_loss(prepared, corpus, data):
    """K = 0 is the same training without the copies."""
    alone = np.full((60, 7, K), -1, np.int32)
    hand = Hand(corpus, data, alone)
    config = shrunk(hardy.get_config(), model__curriculum__k=0)
    plain = make_stages(config, corpus.spec)[-1]
    earlier = jax.tree.map(lambda x: x[0], prepared.earlier)
    params = plain.init(jax.random.key(0), earlier)
    hyper = {"dropout": None, "reconstruction_weight": 1.0}

    def loss(stage):
        return jax.jit(lambda p, b: stage.loss(p, b, jax.random.key(0), hyper)[1])(
            params, hand.batch
        )

    own, mixed = loss(plain), loss(prepared.stage)
    np.testing.assert_allclose(own["task"], mixed["task"], rtol=1e-5)
    np.testing.assert_allclose(own["reconstruction"], mixed["reconstruction"], rtol=1e-5)
    assert own["reconstruction"] > 0


# ---- what is refused ----


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model__embedding": 9}, "model.heads=2 must divide model.embedding=9"),
        ({"train__noise": "gaussian"}, "train.noise=gaussian and a curriculum do not go together"),
    ],
)
def test_faulty_settings_are_explained(corpus, overrides, message):
    with pytest.raises(UserError, match=message):
        make_stages(shrunk(hardy.get_config(), **overrides), corpus.spec)


def test_sequences_are_refused():
    tasks = (Task("emotion", ("a", "b")),)
    spec = CorpusSpec((Modality("audio", 3), Modality("text", 4, 7)), tasks)
    with pytest.raises(UserError, match="one vector per utterance; text holds sequences"):
        make_stages(shrunk(hardy.get_config()), spec)


def test_a_config_without_its_sections_is_refused(corpus):
    config = base()
    config.method = "hardy"
    with pytest.raises(UserError, match="'hardy' needs 'stages.hardy_unimodal'"):
        make_stages(config, corpus.spec)

"""Predictions from arrays in memory: what is absent, what must not matter, what is refused."""

import subprocess
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from places import ROOT
from untrained import SPEC, pick, untrained, utterances

from configs import ifmmin, nmer
from mmer_jax.data.corpus import CorpusSpec, Task
from mmer_jax.errors import UserError

N = 9
CLOSE = {"rtol": 0, "atol": 2e-6}


@pytest.fixture(scope="module")
def model():
    return untrained()


@pytest.fixture(scope="module")
def features():
    return utterances(N)


@pytest.fixture(scope="module")
def expected(model, features):
    return model.predict(features, members=True)


def test_what_is_returned(expected):
    assert expected.outputs.shape == (N, 3) and expected.members.shape == (3, N, 3)
    np.testing.assert_allclose(expected.probabilities.sum(axis=1), 1, atol=1e-5)
    assert expected.labels == [expected.classes[i] for i in expected.probabilities.argmax(axis=1)]
    assert expected.used.all() and expected.used_names == ["text+audio+sound"] * N
    assert (expected.modalities, len(expected)) == (SPEC.names, N)
    with pytest.raises(UserError, match="predicts classes .glad, mad, sad.: ask for .probabil"):
        _ = expected.values


def test_the_ensemble_is_the_mean_of_its_members(expected):
    np.testing.assert_allclose(expected.probabilities, expected.members.mean(axis=0), **CLOSE)
    assert np.abs(expected.members - expected.members[:1]).max() > 0.05


def test_a_member_is_the_network_on_features_normalised_by_its_fold(model, features, expected):
    """Normalised, clipped and predicted by hand, one utterance at a time."""
    from mmer_jax.methods.stage import Batch

    weights, stage = model.trained.weights, model.trained.stage
    for member, i in ((0, 0), (2, 5)):
        x, lengths = {}, {}
        for m in SPEC.modalities:
            mean, std = (weights[k][m.name][member] for k in ("mean", "std"))
            given = np.float32(features[m.name][i])
            x[m.name] = np.clip((given - mean) / std, -3, 3)[None]
            if m.is_sequence:
                lengths[m.name] = np.array([len(given)])
        there = np.ones((1, 3), bool)
        one = np.ones((1, 1), bool)
        batch = Batch(
            x, lengths, there, np.zeros(1), np.ones(1), one, there[None], None, None, {}, {}
        )
        params = jax.tree.map(lambda leaf, k=member: leaf[k], weights["params"])
        params, batch = jax.tree.map(jnp.asarray, (params, batch))
        by_hand = jax.nn.softmax(jax.jit(stage.predict)(params, batch)[0, 0])
        np.testing.assert_allclose(expected.members[member, i], by_hand, **CLOSE)


def test_on_an_accelerator_members_run_side_by_side(features, expected):
    """There the same function is vmapped instead of looped over."""

    def not_a_cpu(*operands, cpu, default):
        return default(*operands)

    with mock.patch("jax.lax.platform_dependent", not_a_cpu):
        found = untrained().predict(features, members=True)
    np.testing.assert_allclose(found.members, expected.members, **CLOSE)


# ---- what is absent ----

HOLES = (1, 4)


def holed(features, name, hole):
    """`features` where utterances HOLES have `hole(utterance)` as modality `name`."""
    given = list(features[name])
    for i in HOLES:
        given[i] = hole(given[i])
    return {**features, name: given}


def nan_in(x):
    x = np.array(x)
    x.flat[-1] = np.nan
    return x


@pytest.mark.parametrize("name", SPEC.names)
def test_all_ways_to_lack_a_modality_are_the_same(model, features, expected, name):
    others = {k: v for k, v in features.items() if k != name}
    without = model.predict(others)
    assert not without.used[:, SPEC.names.index(name)].any()
    assert np.abs(without.outputs - expected.outputs).max() > 0.01
    for hole in (
        lambda x: None,
        nan_in,
        lambda x: np.full(np.shape(x), np.inf),
        lambda x: x * 1e39,
    ):
        found = model.predict(holed(features, name, hole))
        assert (~found.used[:, SPEC.names.index(name)]).nonzero()[0].tolist() == list(HOLES)
        rows = np.isin(np.arange(N), HOLES)
        np.testing.assert_allclose(found.outputs[rows], without.outputs[rows], **CLOSE)
        np.testing.assert_allclose(found.outputs[~rows], expected.outputs[~rows], **CLOSE)
    given_as_none = model.predict({**features, name: None})
    np.testing.assert_array_equal(given_as_none.outputs, without.outputs)


def test_a_sequence_without_steps_is_absent(model, features):
    found = model.predict(holed(features, "text", lambda x: x[:0]))
    expected = model.predict(holed(features, "text", lambda x: None))
    np.testing.assert_array_equal(found.outputs, expected.outputs)


def test_an_utterance_with_nothing_has_no_prediction(model, features):
    text = list(features["text"])
    text[3] = None
    found = model.predict({"text": text}, members=True)
    assert np.isnan(found.outputs[3]).all() and np.isnan(found.members[:, 3]).all()
    assert np.isfinite(np.delete(found.outputs, 3, axis=0)).all()
    assert found.labels[3] == "" and found.used_names[3] == "" and found.labels[2] != ""


def test_no_utterance_at_all(model):
    found = model.predict({"text": [], "audio": np.zeros((0, 3))}, members=True)
    assert found.outputs.shape == (0, 3) and found.labels == [] and found.used.shape == (0, 3)


# ---- what must not matter ----


def test_batches_and_order_do_not_matter(model, features, expected):
    for size in (2, 1000):
        found = model.predict(features, batch_size=size)
        np.testing.assert_allclose(found.outputs, expected.outputs, **CLOSE)
    order = np.random.default_rng(0).permutation(N)
    found = model.predict(pick(features, order))
    np.testing.assert_allclose(found.outputs, expected.outputs[order], **CLOSE)


@pytest.mark.parametrize("config", [ifmmin, nmer], ids=lambda c: c.__name__)
def test_nor_do_neighbours_of_other_lengths(config):
    """Alone an utterance is filled up to 2 steps, beside a long one to 56."""
    overrides = {"model__vae__heads": 2} if config is nmer else {}
    model = untrained(config.get_config(), count=2, **overrides)
    short, long = np.ones((2, 4)), np.ones((50, 4))
    alone = model.predict({"text": [short]})
    beside = model.predict({"text": [short, long], "audio": [None, np.ones(3)]})
    np.testing.assert_allclose(beside.outputs[:1], alone.outputs, **CLOSE)
    assert np.isfinite(beside.outputs).all() and beside.used_names[1] == "text+audio"


def test_few_programs_are_compiled():
    """3 or 4 utterances of any lengths: 3 numbers of steps, 1/4, 1/2 and all of training's."""
    model = untrained()
    rng = np.random.default_rng(0)
    for _ in range(20):
        n = rng.integers(3, 5)
        steps = rng.integers(1, 8, size=n)
        model.predict({"text": [np.zeros((t, 4)) for t in steps]})
    assert model._program._cache_size() <= 3


def test_where_padding_counts_it_is_as_much_as_in_training():
    model = untrained(quirks__pad_masking=False)
    features = utterances(N)
    expected = model.predict(features)
    for i in range(N):
        found = model.predict(pick(features, [i]))
        np.testing.assert_allclose(found.outputs, expected.outputs[i : i + 1], **CLOSE)
    features["text"][6] = np.zeros((8, 4))
    with pytest.raises(UserError, match="'text', utterance 6: 8 steps. .*filled up to 7 steps"):
        model.predict(features)
    features["text"][6] = np.full((8, 4), np.nan)  # absent, however long
    assert model.predict(features).used_names[6] == "audio+sound"


def test_values_are_in_the_unit_of_the_label():
    """Member f has label mean f: three copies of one network differ by that."""
    spec = CorpusSpec(SPEC.modalities, (Task("score", ()),))
    model = untrained(spec=spec)
    weights = jax.tree.map(lambda x: np.repeat(x[:1], 3, axis=0), model.trained.weights)
    weights["label_mean"] = np.float32([0, 10, 20])
    weights["label_std"] = np.float32([1, 1, 2])
    model = type(model)(type(model.trained)(**{**vars(model.trained), "weights": weights}))
    found = model.predict(utterances(4, spec=spec), members=True)
    first = found.members[0, :, 0]
    np.testing.assert_allclose(found.members[1, :, 0], first + 10, rtol=1e-6)
    np.testing.assert_allclose(found.members[2, :, 0], 2 * first + 20, rtol=1e-6)
    np.testing.assert_allclose(found.values, (4 * first + 30) / 3, rtol=1e-5)
    for name in ("labels", "probabilities"):
        with pytest.raises(UserError, match="a real-valued label: ask for .values"):
            getattr(found, name)


# ---- what is refused ----

X, A = [np.zeros((2, 4))] * 2, np.zeros((2, 3))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({}, "no modality is given; expected some of: text, audio, sound"),
        ({"text": None}, "no modality is given"),
        ([A], "features are a list; expected a mapping from modality to arrays, of: text"),
        ({"video": A}, "unknown modality video; this model has: text, audio, sound"),
        ({"audio": np.zeros((2, 4))}, "'audio', utterance 0 has shape .4., expected .3. as in tr"),
        ({"audio": np.zeros(3)}, "'audio' has shape .3,., expected an array .N, 3.; of a single"),
        ({"audio": [A[0], [A[0]]]}, "'audio', utterance 1 has shape .1, 3., expected .3."),
        ({"audio": 3}, "'audio' is a int, expected an array .N, 3."),
        ({"audio": ["abc"]}, "'audio', utterance 0 is no array of numbers: could not convert"),
        ({"text": X[0]}, "'text', utterance 0 has shape .4., expected .T, 4. as in training"),
        ({"text": [X[0], np.zeros((2, 5))]}, "'text', utterance 1 has shape .2, 5., expected .T"),
        (
            {"text": X, "audio": A[:1]},
            "differ in their number of utterances: modality 'text': 2, modality 'audio': 1; give",
        ),
    ],
    ids=lambda x: None if isinstance(x, str) else "",
)
def test_faulty_features_are_explained(model, features, message):
    with pytest.raises(UserError, match=message):
        model.predict(features)


def test_a_batch_has_at_least_one_utterance(model):
    with pytest.raises(UserError, match="batch_size is 0; it must be at least 1"):
        model.predict({"audio": A}, batch_size=0)


def test_importing_the_package_stays_cheap():
    code = "import sys, mmer_jax; mmer_jax.load; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0

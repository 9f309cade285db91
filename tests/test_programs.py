"""The engine's invariants: patterns, trials, devices, placement, padding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same_results, one_batch, shrunk, tables, train, trial_data

from configs import ifmmin, nmer, utt_fusion
from mmer_jax.checkpoint import finished_trials, load_final
from mmer_jax.config import INCIDENTAL
from mmer_jax.data.feed import Feed
from mmer_jax.data.synthetic import make_synthetic
from mmer_jax.mesh import make_mesh
from mmer_jax.methods import make_stages
from mmer_jax.programs import Programs


def small(config=ifmmin, **overrides):
    """A shipped config on a small synthetic corpus, at the paper's learning rate.

    Other shapes round differently, and where a gradient is almost zero Adam turns a difference of
    rounding into one of up to the learning rate; the shipped rate of 1e-3 is for real corpora.
    """
    made = config.get_config()
    for stage in made.stages.values():
        stage.learning_rate = 2e-4
    return shrunk(
        made,
        data__source="synthetic",
        data__label="emotion",
        data__splits="session",
        **overrides,
    )


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """All five folds on one device, device-resident; (workdir, results)."""
    workdir = tmp_path_factory.mktemp("reference")
    return workdir, train(small(), workdir)[0]


def best_params(workdir):
    (group,) = {found.group for found in finished_trials(workdir).values()}
    return load_final(workdir, group)


def assert_same_parameters(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), a, b)


# ---- all patterns in one step ----


@pytest.fixture(scope="module")
def batch(corpus):
    return one_batch(corpus, trial_data(corpus, 1))


def test_sampled_patterns_leave_something_and_hide_something(batch):
    from mmer_jax.programs import _sample_pattern

    keys = jax.random.split(jax.random.key(0), 20)
    sampled = np.asarray(jax.vmap(lambda key: _sample_pattern(key, batch)[0])(keys))
    sampled = sampled[:, 1:].reshape(-1, 3)  # the first row only fills up
    counts = np.unique(sampled, axis=0, return_counts=True)[1]
    assert len(counts) == 6 and counts.min() > 60


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.6, 1.0])
def test_training_at_a_rate_misses_that_share_of_the_slots(batch, rate):
    from mmer_jax.programs import _sample_at_rate

    keys = jax.random.split(jax.random.key(0), 100)
    fixed = jnp.full(2, rate)
    left = np.asarray(jax.vmap(lambda key: _sample_at_rate(key, batch, fixed))(keys))
    left = left[:, :, 1:]  # the first row only fills up
    assert left.any(axis=-1).all()
    assert 1 - left.mean() == pytest.approx(min(rate, 2 / 3), abs=0.02)


def test_a_uniform_rate_differs_from_batch_to_batch(batch):
    from mmer_jax.programs import _sample_at_rate

    keys = jax.random.split(jax.random.key(0), 100)
    span = jnp.array([0.0, 1.0])
    left = np.asarray(jax.vmap(lambda key: _sample_at_rate(key, batch, span))(keys))
    missing = 1 - left.mean(axis=(1, 2, 3))
    assert missing.min() < 0.05 and missing.max() > 0.6 and missing.std() > 0.15


def test_trials_share_one_copy_of_the_features():
    """Memory grows with the trials' own arrays alone, and in proportion to them."""
    corpus = make_synthetic(n_utterances=4000, sequence_dims=((32, 16), (24, 16)))
    features = len(corpus) * corpus.row_bytes

    def sizes(count):
        (stage,) = make_stages(small(utt_fusion), corpus.spec)
        mesh = make_mesh(count, 32, n_devices=1)
        feed = Feed(corpus, mesh, placement="device", memory_budget=0)
        data = trial_data(corpus, count)._replace(
            hyper={k: jnp.full(count, v) for k, v in stage.hyper.items()}
        )
        programs = Programs(stage, corpus.spec, mesh)
        state = programs.init(data.key, {})
        (piece,) = feed.pieces(tables(np.zeros((4, count, 32))))
        compiled = programs.lower_epoch(state, data, piece, piece).compile()
        own = sum(x.nbytes for x in jax.tree.leaves((state, data._replace(key=None))))
        memory = compiled.memory_analysis()
        return own, memory.argument_size_in_bytes, memory.temp_size_in_bytes

    own, arguments, temporaries = sizes(1)
    own_many, arguments_many, temporaries_many = sizes(12)
    assert own_many == pytest.approx(12 * own, rel=1e-3)
    assert arguments_many - arguments < 1.1 * (own_many - own) + 0.1 * features
    assert temporaries_many < 1.5 * 12 * temporaries


# ---- the same numbers whatever runs beside them and wherever ----


def test_a_trial_alone_equals_the_same_trial_among_others(reference, tmp_path):
    workdir, together = reference
    alone, _ = train(small(trials__folds=[3]), tmp_path)
    assert_same_parameters(
        best_params(tmp_path), jax.tree.map(lambda x: x[3:4], best_params(workdir))
    )
    assert_same_results(alone, [r for r in together if r.fold == 3])


def test_groups_of_trials_give_the_same_results(tmp_path):
    together, _ = train(small(utt_fusion), tmp_path / "together")
    grouped, text = train(small(utt_fusion, trials__max_parallel=2), tmp_path / "grouped")
    assert "in 3 group(s)" in text
    assert_same_results(grouped, together)


@pytest.mark.parametrize(("devices", "data"), [pytest.param(8, 0, marks=pytest.mark.slow), (4, 2)])
def test_any_mesh_gives_the_same_results(reference, tmp_path, devices, data):
    config = small(mesh__devices=devices, mesh__data=data)
    results, _ = train(config, tmp_path)
    assert_same_parameters(best_params(tmp_path), best_params(reference[0]))
    assert_same_results(results, reference[1])


@pytest.mark.slow
def test_noise_and_batch_statistics_do_not_depend_on_the_mesh(tmp_path):
    """NMER: batch normalisation over a divided batch, noise by utterance."""
    runs = {}
    for devices, data in ((1, 1), (2, 2)):
        config = small(nmer, trials__folds=[0], mesh__devices=devices, mesh__data=data)
        results, _ = train(config, tmp_path / str(devices))
        params = best_params(tmp_path / str(devices))
        # Keys' biases change no attention: their gradients are rounding, which Adam blows up.
        params["nmer"]["vae"]["layers"]["attention"]["projection"].pop("bias")
        runs[devices] = params, results
    assert_same_parameters(runs[2][0], runs[1][0])
    assert_same_results(runs[2][1], runs[1][1])


@pytest.mark.parametrize("budget_gb", [pytest.param(5e-5, marks=pytest.mark.slow), 1e-3])
def test_streaming_equals_device_placement(reference, tmp_path, budget_gb):
    config = small(data__placement="stream", data__memory_budget_gb=budget_gb)
    results, _ = train(config, tmp_path)
    assert_same_parameters(best_params(tmp_path), best_params(reference[0]))
    assert_same_results(results, reference[1])


def test_auto_placement_follows_the_budget(corpus):
    mesh = make_mesh(1, 32, n_devices=1)
    size = len(corpus) * corpus.row_bytes
    for budget, placement in ((size, "device"), (size - 1, "stream")):
        feed = Feed(corpus, mesh, placement="auto", memory_budget=budget)
        assert feed.placement == placement


def test_a_piece_stays_within_half_the_budget(corpus):
    mesh = make_mesh(2, 4, n_devices=1)
    rows = np.random.default_rng(0).integers(-1, 240, size=(9, 2, 4)).astype(np.int32)
    budget = 40 * corpus.row_bytes
    feed = Feed(corpus, mesh, placement="stream", memory_budget=budget)
    pieces = list(feed.pieces(tables(rows)))
    assert len({p.slots.shape for p in pieces}) == 1 and len(pieces) == 5
    everything = corpus.read(np.arange(240))
    seen = []
    for piece in pieces:
        resident = piece.resident.features["visual"]
        assert resident.nbytes // resident[0].nbytes * corpus.row_bytes <= budget / 2
        for slots, wanted in zip(piece.slots[..., 0], piece.rows[..., 0], strict=True):
            slots, wanted = np.asarray(slots), np.asarray(wanted)
            seen.append(wanted)
            real = wanted >= 0
            np.testing.assert_array_equal(
                np.asarray(resident)[slots[real]], everything["visual"][wanted[real]]
            )
    np.testing.assert_array_equal(np.stack(seen)[:9], rows)


# ---- nothing leaks from validation or test into training ----


def test_marked_test_utterances_do_not_change_training(corpus, tmp_path, monkeypatch):
    """Huge features and wrong labels in test rows: the same parameters, other test scores."""
    config = small(utt_fusion, trials__folds=[0])
    marked_rows = np.flatnonzero(corpus.columns["session"] == "0")

    class Marked:
        rows_of_process = corpus.source.rows_of_process

        def stream(self, batches):
            batches = list(batches)
            for rows, features in zip(batches, corpus.source.stream(batches), strict=True):
                features = {k: v.copy() for k, v in features.items()}
                for x in features.values():
                    x[np.isin(rows, marked_rows)] *= 1000
                yield features

    labels = corpus.labels.copy()
    labels[marked_rows] = (labels[marked_rows] + 1) % 4
    marked = dataclasses.replace(corpus, source=Marked(), labels=labels)
    outcomes = []
    for name, data in (("plain", corpus), ("marked", marked)):
        monkeypatch.setattr("mmer_jax.train.load_corpus", lambda config, data=data: data)
        results, _ = train(config, tmp_path / name)
        outcomes.append((best_params(tmp_path / name), [r.value for r in results]))
    assert_same_parameters(outcomes[0][0], outcomes[1][0])
    assert outcomes[0][1] != outcomes[1][1]


def test_incidental_keys_exist():
    from mmer_jax.config import base, flat

    assert set(INCIDENTAL) <= set(flat(base()))

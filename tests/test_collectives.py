"""Bytes between devices, counted in compiled programs whose collectives are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import all_rows, shrunk, trial_data
from jax.sharding import NamedSharding, PartitionSpec

from configs import demo
from mmer_jax.bench.collectives import bytes_sent
from mmer_jax.data.feed import Feed
from mmer_jax.mesh import by_trial, make_mesh, put
from mmer_jax.methods import make_stages
from mmer_jax.programs import Programs


def compiled(function, *shapes, spec, mesh):
    sharding = NamedSharding(mesh, spec)
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding) for shape in shapes]
    return jax.jit(function).lower(*arguments).compile().as_text()


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(1, 8, data=4, n_devices=4)


def test_a_sum_over_the_batch_is_reduced_once(mesh):
    text = compiled(lambda x: x.sum(axis=0), (8, 6), spec=PartitionSpec("data"), mesh=mesh)
    assert bytes_sent(text) == {"all-reduce": 6 * 4}


@pytest.mark.parametrize("turns", [1, 5])
def test_in_a_loop_it_counts_as_often_as_the_loop_turns(mesh, turns):
    def steps(x):
        def step(total, i):
            return total + jnp.tanh(x * total[0] + i).sum(axis=0), None

        return jax.lax.scan(step, jnp.zeros(6), jnp.arange(turns, dtype=jnp.float32))[0]

    text = compiled(steps, (8, 6), spec=PartitionSpec("data"), mesh=mesh)
    assert bytes_sent(text)["all-reduce"] == turns * 6 * 4


def test_trials_that_do_not_speak_send_nothing():
    mesh = make_mesh(4, 8, n_devices=4)
    text = compiled(
        lambda x: jnp.tanh(x).sum(axis=1), (4, 6), spec=PartitionSpec("trial"), mesh=mesh
    )
    assert not bytes_sent(text)


def test_a_loop_of_unknown_length_is_not_guessed(mesh):
    def until(x):
        return jax.lax.while_loop(
            lambda total: total.sum() < 100,
            lambda total: total + jnp.exp(x * total[0]).sum(axis=0),
            jnp.zeros(6),
        )

    text = compiled(until, (8, 6), spec=PartitionSpec("data"), mesh=mesh)
    with pytest.raises(ValueError, match="loop of unknown length"):
        bytes_sent(text)


def test_the_training_step_of_trials_alone_sends_nothing(corpus):
    """IF-MMIN's student, on a mesh of trials and on one that divides the batch as well."""
    stage = make_stages(shrunk(demo.get_config()), corpus.spec)[0]

    def sent(trials, data):
        mesh = make_mesh(trials, 32, data=data, n_devices=4)
        programs = Programs(stage, corpus.spec, mesh)
        hyper = {name: np.full(trials, value, np.float32) for name, value in stage.hyper.items()}
        given = put(trial_data(corpus, trials)._replace(hyper=hyper), by_trial(mesh))
        feed = Feed(corpus, mesh, placement="device", memory_budget=0)
        (piece,) = feed.pieces(all_rows(corpus, trials))
        lowered = programs.lower_epoch(programs.init(given.key, {}), given, piece, piece)
        return bytes_sent(lowered.compile().as_text())

    assert not sent(4, 1)
    shared = sent(2, 2)
    assert shared["all-reduce"] > 0
    assert not shared["all-gather"], "a device needs its own rows alone"

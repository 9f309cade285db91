"""Memory is used again, and never while anybody can still see what is in it."""

import threading

import jax
import numpy as np
import pytest

from mmer_jax.data.rooms import KEPT, Rooms

LAYOUT = {"a": ((5, 3), np.dtype(np.float16)), "b": ((5, 2, 4), np.dtype(np.float32))}


def address(features):
    return features["a"].__array_interface__["data"][0]


def filled(rooms, value):
    features = rooms.arrays(LAYOUT)
    for x in features.values():
        x[:] = value
    return features


def test_arrays_have_their_shapes_and_do_not_overlap():
    features = filled(Rooms(), 0)
    features["a"][:] = 7
    assert {name: (x.shape, x.dtype) for name, x in features.items()} == LAYOUT
    assert not features["b"].any() and (features["a"] == 7).all()
    assert all(x.__array_interface__["data"][0] % 64 == 0 for x in features.values())


def test_a_room_is_used_again_when_the_last_view_is_gone():
    rooms = Rooms()
    features = filled(rooms, 1)
    first, view = address(features), features["b"][2:, 0]
    del features
    assert address(filled(rooms, 2)) != first and (view == 1).all()
    del view
    assert first in [address(f) for f in [filled(rooms, 3), filled(rooms, 3)]]


@pytest.mark.parametrize("size", [64, 2**20])
def test_a_room_is_not_used_again_while_a_device_has_its_arrays(size):
    """On a CPU JAX computes with the memory itself."""
    rooms = Rooms()
    layout = {"a": ((size,), np.dtype(np.float32))}

    def put(value):
        host = rooms.arrays(layout)["a"]
        host[:] = value
        return jax.device_put(host)

    on_device = [put(value) for value in range(20)]
    for value, x in enumerate(on_device):
        np.testing.assert_array_equal(np.asarray(x), np.full(size, value, np.float32))


def test_a_computation_that_has_not_begun_reads_what_was_there():
    rooms = Rooms()
    layout = {"a": ((2**20,), np.dtype(np.float32))}
    slow = jax.jit(lambda x: jax.lax.fori_loop(0, 20, lambda i, y: y + x, x))
    results = []
    for value in range(12):
        host = rooms.arrays(layout)["a"]
        host[:] = value
        results.append(slow(jax.device_put(host)))
        del host
    assert [float(r[-1]) for r in results] == [21.0 * value for value in range(12)]


def test_few_free_rooms_are_kept_and_none_that_is_too_small():
    rooms = Rooms()
    many = [filled(rooms, 0) for _ in range(2 * KEPT)]
    del many
    assert len(rooms._free) == KEPT
    large = rooms.arrays({"a": ((1000,), np.dtype(np.float32))})
    assert large["a"].nbytes == 4000 and len(rooms._free) == KEPT - 1


def test_threads_never_share_a_room():
    rooms, wrong = Rooms(), []

    def work(number):
        for turn in range(300):
            value = number * 1000 + turn
            features = rooms.arrays({"a": ((64,), np.dtype(np.int32))})
            features["a"][:] = value
            if (features["a"] != value).any():
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(rooms._free) <= KEPT

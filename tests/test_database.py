"""Databases in a workdir: what comes back, and what is refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from mmer_jax import database
from mmer_jax.database import Database, fingerprint, load, save
from mmer_jax.errors import UserError

IDS = ["a1", "b2", "c3"]
SHAPES = {"hidden": (2, 4), "present": (2,)}
PARAMS = {"layer": {"kernel": np.arange(6.0).reshape(2, 3), "bias": np.zeros(3)}}


@pytest.fixture
def stored(tmp_path):
    arrays = {
        "hidden": np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32),
        "present": np.array([[1, 0], [1, 1], [0, 1]], bool),
    }
    path = tmp_path / "databases" / "0.safetensors"
    save(path, Database(IDS, arrays), encoder=fingerprint(PARAMS))
    return path, arrays


def test_what_was_saved_comes_back(stored):
    path, arrays = stored
    found = load(path, encoder=fingerprint(PARAMS), shapes=SHAPES, ids=IDS)
    assert found.ids == IDS and found.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
        assert found.arrays[name].dtype == array.dtype


@pytest.mark.parametrize(
    "other",
    [
        {"layer": {"kernel": np.arange(6.0).reshape(2, 3) + 1e-12, "bias": np.zeros(3)}},
        {"layer": {"kernel": np.arange(6.0).reshape(3, 2), "bias": np.zeros(3)}},
        {"layer": {"kernel": np.arange(6.0).reshape(2, 3), "scale": np.zeros(3)}},
    ],
)
def test_another_encoder_is_refused(stored, other):
    with pytest.raises(UserError, match=f"encoder {fingerprint(PARAMS)}, .*{fingerprint(other)}"):
        load(stored[0], encoder=fingerprint(other), shapes=SHAPES)


@pytest.mark.parametrize("ids", [["a1", "b2", "d4"], ["a1", "c3", "b2"], ["a1", "b2"]])
def test_other_ids_are_refused(stored, ids):
    with pytest.raises(UserError, match="other utterances"):
        load(stored[0], encoder=fingerprint(PARAMS), shapes=SHAPES, ids=ids)


@pytest.mark.parametrize(
    "shapes", [SHAPES | {"hidden": (2, 5)}, {"hidden": (2, 4)}, SHAPES | {"more": ()}]
)
def test_other_shapes_are_refused(stored, shapes):
    with pytest.raises(UserError, match="expected"):
        load(stored[0], encoder=fingerprint(PARAMS), shapes=shapes)


def test_damaged_and_foreign_files(stored, tmp_path):
    path, arrays = stored
    given = {"encoder": fingerprint(PARAMS), "shapes": SHAPES}
    content = path.read_bytes()
    for damaged in (b"", content[:40], content[:-5], b"\xff" * 16 + content[16:]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged"):
            load(path, **given)
    for header in (None, {"encoder": given["encoder"], "ids": json.dumps({"a": 1})}):
        save_file(arrays, path, metadata=header)
        with pytest.raises(UserError, match="damaged"):
            load(path, **given)
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path / "none.safetensors", **given)


def test_fewer_rows_than_ids_are_refused(stored):
    path, arrays = stored
    arrays["hidden"] = arrays["hidden"][:2]
    save(path, Database(IDS, arrays), encoder="e")
    with pytest.raises(UserError, match="expected"):
        database.load(path, encoder="e", shapes=SHAPES)

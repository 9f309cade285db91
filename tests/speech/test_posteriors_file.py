"""Posteriors of an external recogniser."""

import numpy as np
import pytest

from mmer_jax.errors import UserError
from mmer_jax.speech.phones import BLANK, INDEX, SIL
from mmer_jax.speech.posteriors_file import read_posteriors

SYMBOLS = ["<pad>", "AA0", "AA1_B", "K_E", "sil", "<unk>"]


def write(path, **changes):
    probability = np.array([[0.1, 0.2, 0.3, 0.2, 0.15, 0.05], [0.5, 0.1, 0.1, 0.1, 0.1, 0.1]])
    arrays = {
        "log_posteriors": np.log(probability).astype(np.float32),
        "symbols": np.array(SYMBOLS),
        "frame_shift": np.array(0.02),
    } | changes
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def test_symbols_of_the_same_phone_are_added_up(tmp_path):
    found = read_posteriors(write(tmp_path / "u.npz"))
    assert found.frame_shift == 0.02 and found.values.shape == (2, 41)
    first = np.exp(found.values[0])
    np.testing.assert_allclose(  # blank, AA, K, silence and a phone without a symbol
        first[[BLANK, INDEX["AA"], INDEX["K"], SIL, INDEX["S"]]],
        [0.1, 0.5, 0.2, 0.15, 0],
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"symbols": None}, "has no array 'symbols'"),
        ({"symbols": np.array(SYMBOLS[:5])}, r"log_posteriors are \[2, 6\] and symbols \[5\]"),
        ({"log_posteriors": np.zeros((2, 6), np.float32)}, "frame 0 add up to 6, expected 1"),
        ({"log_posteriors": np.full((2, 6), np.nan)}, "frame 0 add up to nan"),
        ({"log_posteriors": np.zeros((0, 6))}, r"log_posteriors are \[0, 6\]"),
        ({"frame_shift": np.array("10 ms")}, "frame_shift holds <U5; expected numbers"),
        ({"frame_shift": np.array(20.0)}, "frame_shift is 20.0; expected seconds"),
        ({"symbols": np.array(list("abcdef"))}, "no symbol is an ARPAbet phone: a, b, c"),
    ],
)
def test_faulty_files_are_refused(tmp_path, changes, message):
    path = write(tmp_path / "u.npz", **changes)
    with pytest.raises(UserError, match="u.npz.*" + message):
        read_posteriors(path)


def test_objects_are_never_unpickled(tmp_path):
    path = write(tmp_path / "u.npz", symbols=np.array(SYMBOLS, object))
    with pytest.raises(UserError, match="u.npz"):
        read_posteriors(path)

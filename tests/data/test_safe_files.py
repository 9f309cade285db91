"""Files that claim, point or run: what arrays.py and safe_pickle.py make of them."""

import collections
import io
import pickle
import struct
import zipfile

import numpy as np
import pytest

from mmer_jax.data import arrays
from mmer_jax.data.feature_dir import read_directory
from mmer_jax.data.layouts import safe_pickle
from mmer_jax.errors import UserError

PLAIN = [
    {"v1": ["a", "ü€"], "v2": ()},
    {"s", "t"},
    frozenset([1, 2]),
    (None, True, False, -5, 2**40, 2.5, "", b"\xff\x00"),
    collections.OrderedDict(a=1),
    [[], {}, set(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
]
ARRAYS = [
    np.arange(6.0).reshape(2, 3).T,
    np.array(["a", "bcd"]),
    np.array([b"x"]),
    np.array([1, 2], ">i2"),
    np.array([], np.float32),
    np.array({"a": [1]}, object),
    np.array([["a", None]], object),
]


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_of_every_protocol(protocol):
    loaded = safe_pickle.loads(pickle.dumps([PLAIN, ARRAYS, np.float32(2.5)], protocol), "f")
    assert loaded[0] == PLAIN and loaded[2] == 2.5
    shared = ["x"]
    twice = safe_pickle.loads(pickle.dumps([shared, shared], protocol), "f")
    assert twice[0] is twice[1]
    for found, expected in zip(loaded[1], ARRAYS, strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype and found.shape == expected.shape


# A tuple of itself twice, 60 deep, as a key: hashing it would take 2^60 steps.
NESTED = b"})" + b"".join(b"q%cd0h%c\x86" % (i, i) for i in range(60)).replace(b"d0", b"")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no pickle"),
        (pickle.dumps(PLAIN)[:-5], "is no pickle, or a damaged one"),
        (b"\x80\x04" + b"\x8e" + struct.pack("<Q", 10**12) + b"x.", "is no pickle"),  # BINBYTES8
        (b"]r\xff\xff\xff\x7f.", ""),  # a memo of 2^31 entries, were it an array
        (b"(i__main__\nX\n.", "uses the instruction INST"),
        (b"cnumpy\nndarray\n(tR.", "calls 'ndarray'"),
        (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I1000000000000\ntS'f8'\ntR.",
            "left",
        ),
        (b"]K\x01\x85b.", "sets the state of a list"),
        (b"K\x01K\x02.", "something left over"),
        (b"(K\x01.", "something left over"),
        (b"\x80\x02K\x01b.", "damaged"),
        (b"P1\n.", "uses the instruction PERSID"),
        (b"\x82\x01.", "uses the instruction EXT1"),
        (pickle.dumps({1: 10**400}), "integer of more than 64 bits"),
        (NESTED + b"K\x01s.", "has a tuple as a key"),
        (b"\x8f(" + NESTED[1:] + b"\x90.", "has a tuple as a key"),
        (pickle.dumps(np.datetime64("2020")), "an array of dtype M8"),
        (pickle.dumps(np.zeros(3, [("a", "f8")])), "has a dtype of unknown make"),
        (pickle.dumps(print), "it names builtins.print"),
    ],
)
def test_other_pickles_are_refused_or_harmless(data, message):
    if not message:
        assert safe_pickle.loads(data, "f") is not None
        return
    with pytest.raises(UserError, match=message):
        safe_pickle.loads(data, "f")


def test_an_array_must_have_the_numbers_that_its_shape_claims():
    for array in (np.arange(4.0), np.array(["a", "b"], object)):
        data = pickle.dumps(array, 2)
        shape = pickle.dumps(array.shape, 2)[2:-1].rstrip(b"q\x00")
        assert shape in data
        for other in (b"K\x03\x85", b"K\x7f\x85", b"K\x04\x8a\x05\x00\x00\x00\x00\x10\x86"):
            with pytest.raises(UserError, match="without its|damaged"):
                safe_pickle.loads(data.replace(shape[:3], other, 1), "f")


def npy(header: str, data=b"", version=1):
    text = header.encode("latin-1")
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


def described(descr="'<f4'", order="False", shape="(2,)", more=""):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, {more}}}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an .npy file"),
        (npy(described())[:20], "is truncated in its header"),
        (npy(described(), bytes(7)), "is truncated: "),
        (npy(described(), bytes(9)), "has 1 bytes more"),
        (npy(described(shape="(10**12,)"), bytes(8)), "not of a plain array"),
        (npy(described(shape="(1000000000000,)"), bytes(8)), "needs 4000000000"),
        (npy(described(shape="(-2,)"), bytes(8)), "not of a plain array"),
        (npy(described(shape="(True, 2)"), bytes(8)), "not of a plain array"),
        (npy(described(shape="2"), bytes(8)), "not of a plain array"),
        (npy(described("[('a', '<f4')]"), bytes(8)), "not of a plain array"),
        (npy(described("'|O'"), pickle.dumps([1])), "holds dtype object"),
        (npy(described("'<c8'"), bytes(16)), "not of a plain array"),
        (npy(described("'<f3'"), bytes(6)), "not of a plain array"),
        (npy(described("'<U99999999999'"), bytes(6)), "not of a plain array"),
        (npy(described(more="'x': 1,"), bytes(8)), None),
        (npy("[" * 5000, bytes(8)), "not of a plain array"),
        (npy("__import__('os').system('true')", bytes(8)), "not of a plain array"),
        (npy(described() + " " * 20_000, version=2), "expected at most 10000"),
        (npy(described(), bytes(8), version=3), "format version"),
    ],
)
def test_npy_headers_are_held_against_their_file(tmp_path, content, message):
    (tmp_path / "x.npy").write_bytes(content)
    if message is None:
        assert arrays.read_npy(tmp_path / "x.npy").tolist() == [0, 0]
        return
    with pytest.raises(arrays.BadArray, match=message):
        arrays.read_npy(tmp_path / "x.npy")


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float16).reshape(3, 4),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.array(3, ">i4"),
        np.zeros((0, 5)),
        np.array(["a", "ü"]),
        np.array([True]),
    ],
)
def test_what_numpy_writes_is_read(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    np.savez_compressed(tmp_path / "x.npz", a=array, b=array)
    for found in (arrays.read_npy(tmp_path / "x.npy"), arrays.read_npz(tmp_path / "x.npz")["b"]):
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype and found.shape == array.shape


def test_python_2_wrote_long_integers(tmp_path):
    (tmp_path / "x.npy").write_bytes(npy(described(shape="(2L,)"), bytes(8)))
    assert arrays.read_npy(tmp_path / "x.npy").shape == (2,)


def test_bombs(tmp_path, monkeypatch):
    """Zeros that deflate a thousandfold are refused where they are many."""
    np.savez_compressed(tmp_path / "x.npz", features=np.zeros((1000, 1000)))
    assert arrays.read_npz(tmp_path / "x.npz")["features"].shape == (1000, 1000)
    monkeypatch.setattr(arrays, "BOMB_BYTES", 2**20)
    with pytest.raises(arrays.BadArray, match="refused as a zip bomb"):
        arrays.read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("claim", "message"), [(2**31, "bytes that claims 2147483648"), (100, "bytes that claims 100")]
)
def test_sizes_in_the_directory_of_an_archive(tmp_path, claim, message):
    np.savez(tmp_path / "x.npz", features=np.zeros(4))
    data = bytearray((tmp_path / "x.npz").read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", claim)
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(arrays.BadArray, match=message):
        arrays.read_npz(tmp_path / "x.npz")


def test_names_and_kinds_of_members(tmp_path):
    content = io.BytesIO()
    np.save(content, np.zeros(2))

    def refused(message, name="a.npy", **options):
        with zipfile.ZipFile(tmp_path / "x.npz", "w", **options) as archive:
            archive.writestr(name, content.getvalue())
        with pytest.raises(arrays.BadArray, match=message):
            arrays.read_npz(tmp_path / "x.npz")

    for name in ("../a.npy", "/a.npy", "b/../../a.npy", "..\\a.npy"):
        refused("leaves the archive", name)
    refused("numpy did not write", compression=zipfile.ZIP_BZIP2)
    refused("numpy did not write", compression=zipfile.ZIP_LZMA)
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(arrays.BadArray, match="encrypted"):
        arrays.read_npz(tmp_path / "x.npz")


def test_columns_that_would_need_memory_are_refused(tmp_path):
    """A column is as wide as its widest cell, in every row."""
    rows = "".join(f"u{i},x\n" for i in range(30_000))
    (tmp_path / "utterances.csv").write_text("utt_id,note\n" + rows + f"last,{'y' * 20_000}\n")
    with pytest.raises(UserError, match="line 30002: column 'note' has 20000 characters"):
        read_directory(tmp_path, ("a", "b"), label="note")

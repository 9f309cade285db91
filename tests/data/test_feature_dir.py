"""Feature directories: what is read, and what is said about what cannot be read."""

import numpy as np
import pytest
from helpers import write_features

from mmer_jax.data.corpus import RawModality, parse_labels
from mmer_jax.data.feature_dir import read_directory, write_directory
from mmer_jax.errors import UserError

MODALITIES = ("text", "audio")


def read(root, modalities=MODALITIES, label="emotion", **args):
    return read_directory(root, modalities, label=label, **args)


@pytest.fixture
def root(tmp_path):
    return write_features(tmp_path / "features")


def rewrite(root, name, change):
    """Apply `change` to the arrays of a modality file."""
    with np.load(root / f"{name}.npz") as archive:
        arrays = dict(archive)
    np.savez(root / f"{name}.npz", **change(arrays))


def complaint(root, *args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        read(root, *args, **kwargs)
    return str(caught.value)


def test_rows_keep_their_order_and_are_padded_with_zeros(root):
    corpus = read(root)
    with np.load(root / "text.npz") as archive:
        packed, lengths = archive["features"], archive["lengths"]
    starts = np.cumsum(lengths) - lengths
    features = corpus.read(np.array([5, 2]))
    for i, row in enumerate((5, 2)):
        own = packed[starts[row] : starts[row] + lengths[row]]
        np.testing.assert_array_equal(features["text"][i, : lengths[row]], own)
        assert not features["text"][i, lengths[row] :].any()
    assert features["text"].dtype == np.float16
    assert corpus.spec.tasks[0].classes == ("glad", "sad") and corpus.spec.names == MODALITIES


def test_missing_feature_file_names_it_and_what_there_is(root):
    message = complaint(root, ("text", "video"))
    assert "video.npz does not exist" in message and "audio, face, text" in message


def test_row_counts_must_match(root):
    rewrite(root, "audio", lambda a: {"features": a["features"][:-3]})
    assert "audio.npz has 37 rows, utterances.csv has 40" in complaint(root)


def test_lengths_must_add_up(root):
    rewrite(root, "text", lambda a: {**a, "features": a["features"][:-1]})
    assert "text.npz: lengths add up to" in complaint(root)


def test_zero_length_sequence_is_named(root):
    def change(arrays):
        lengths = arrays["lengths"].copy()
        lengths[1] += lengths[7]
        lengths[7] = 0
        return {**arrays, "lengths": lengths}

    rewrite(root, "text", change)
    assert "1 zero-length sequence(s): u7" in complaint(root)


def test_duplicate_ids_are_named(root):
    path = root / "utterances.csv"
    path.write_text(path.read_text().replace("\nu3,", "\nu2,"))
    assert "1 duplicate utt_id(s): u2" in complaint(root)


def test_ragged_line_is_numbered(root):
    path = root / "utterances.csv"
    lines = path.read_text().splitlines()
    lines[4] = "u3,sad"
    path.write_text("\n".join(lines))
    assert "line 5: expected 7 fields" in complaint(root)


def test_unknown_label_lists_the_columns(root):
    message = complaint(root, label="mood")
    assert "unknown label column 'mood'" in message and "emotion, score" in message


def test_nonfinite_features_name_file_utterances_and_count(root):
    def change(arrays):
        features = arrays["features"].copy()
        features[4, 1], features[9, 0] = np.nan, np.inf
        return {"features": features}

    rewrite(root, "audio", change)
    message = complaint(root)
    assert "audio.npz: 2 utterance(s) with NaN or infinite values: u4, u9" in message
    corpus = read(root, nonfinite="missing")
    np.testing.assert_array_equal(np.flatnonzero(~corpus.present[:, 1]), [4, 9])
    assert not corpus.read(np.array([4, 9]))["audio"].any()
    assert np.isfinite(corpus.read(np.arange(40))["audio"]).all()


def test_an_utterance_without_any_modality_is_an_error(root):
    for name in ("audio", "face"):
        rewrite(
            root, name, lambda a: {"features": np.where(np.arange(40)[:, None] == 6, np.nan, 1)}
        )
    message = complaint(root, ("audio", "face"), nonfinite="missing")
    assert "no usable modality at all" in message and "u6" in message


def test_numbers_beyond_float32_are_not_finite(root):
    rewrite(root, "audio", lambda a: {"features": np.full((40, 2), 1e300)})
    assert "audio.npz: 40 utterance(s)" in complaint(root)


@pytest.mark.parametrize("bad", ["object", "shape", "text", "garbage"])
def test_files_that_are_not_features(root, bad):
    path = root / "audio.npz"
    if bad == "object":
        np.savez(path, features=np.array([{}] * 40, object))
    elif bad == "shape":
        np.savez(path, features=np.zeros((40, 2, 2)))
    elif bad == "text":
        np.savez(path, features=np.array([["a"]] * 40))
    else:
        path.write_bytes(b"PK\x03\x04 not a zip")
    assert "audio.npz" in complaint(root)


def test_not_utf8_is_an_error_of_ours(root):
    (root / "utterances.csv").write_bytes(b"utt_id\n\xff\xfe\n")
    assert "not a UTF-8 CSV file" in complaint(root)


def test_real_valued_labels_are_recognised(root):
    corpus = read(root, label="score")
    assert not corpus.spec.is_classification and corpus.labels.dtype == np.float32


def test_parse_labels():
    labels, classes = parse_labels(["10", "9", "", "9"], column="c")
    assert classes == ("9", "10") and labels.tolist() == [1, 0, -1, 0]
    labels, classes = parse_labels(["1", "2.5", "nan"], column="c")
    assert classes == () and labels[:2].tolist() == [1, 2.5] and np.isnan(labels[2])
    with pytest.raises(UserError, match="classes or a scale"):
        parse_labels(["1.0", "2.0", ""], column="c")
    assert parse_labels(["1", "2.0"], column="c", task="classification")[1] == ("1", "2.0")
    with pytest.raises(UserError, match="may not contain '>'"):
        parse_labels(["<30", ">30"], column="c")
    with pytest.raises(UserError, match="single class 'x'"):
        parse_labels(["x", ""], column="c")
    with pytest.raises(UserError, match="not numeric .for example 'x'"):
        parse_labels(["1.5", "x"], column="c", task="regression")
    with pytest.raises(UserError, match="holds c, not among"):
        parse_labels(["a", "c"], column="c", classes=("a", "b"))
    with pytest.raises(UserError, match="empty for every utterance"):
        parse_labels(["", ""], column="c")


def test_write_then_read_is_the_same(tmp_path):
    raw = {
        "a": RawModality(np.arange(6, dtype=np.float32).reshape(3, 2), None, "a"),
        "b": RawModality(np.arange(8, dtype=np.float32).reshape(4, 2), np.array([1, 2, 1]), "b"),
    }
    write_directory(tmp_path, {"utt_id": ["x", "y, z", "w"], "c": ["p", "q", "p"]}, raw)
    corpus = read(tmp_path, ("a", "b"), "c")
    assert corpus.ids.tolist() == ["x", "y, z", "w"]
    np.testing.assert_array_equal(corpus.read(np.array([1]))["b"], [[[2, 3], [4, 5]]])


# ---- files that name their rows ----


@pytest.mark.parametrize("name", ["audio", "text"])
def test_named_rows_stand_in_any_order_and_may_be_fewer(root, name):
    """u7 and u20 have no row; all others are read as from the file in order."""
    whole = read(root)
    left = np.random.default_rng(0).permutation(np.delete(np.arange(40), [7, 20]))

    def change(arrays):
        named = {"utt_id": np.array([f"u{i}" for i in left])}
        if "lengths" not in arrays:
            return {"features": arrays["features"][left], **named}
        parts = np.split(arrays["features"], np.cumsum(arrays["lengths"])[:-1])
        features = np.concatenate([parts[i] for i in left])
        return {"features": features, "lengths": arrays["lengths"][left], **named}

    rewrite(root, name, change)
    assert f"{name}.npz: 2 utterance(s) with NaN or infinite values: u7, u20" in complaint(root)
    found = read(root, nonfinite="missing")
    absent = (~found.present[:, MODALITIES.index(name)]).nonzero()[0]
    assert absent.tolist() == [7, 20] and found.present.sum() == 78
    rows = np.delete(np.arange(40), [7, 20])
    for m in MODALITIES:
        np.testing.assert_array_equal(found.read(rows)[m], whole.read(rows)[m])
    np.testing.assert_array_equal(found.lengths["text"][rows], whole.lengths["text"][rows])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([f"u{i}" for i in range(39)], "audio.npz has 40 rows, its utt_id has 39"),
        ([f"u{i // 2}" for i in range(40)], "audio.npz: 20 duplicate utt_id(s): u0, u1,"),
        ([f"v{i}" for i in range(40)], "40 utt_id(s) that utterances.csv does not list: v0, v1,"),
        (np.arange(40), "audio.npz: utt_id is int64[40], expected strings [n]"),
        (np.array([], str), "audio.npz has no row; remove the file"),
    ],
)
def test_faulty_names_of_rows(root, names, message):
    rewrite(root, "audio", lambda a: {**a, "utt_id": np.array(names)})
    assert message in complaint(root)

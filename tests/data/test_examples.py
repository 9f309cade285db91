"""The walk over a serialized tf.train.Example, against TensorFlow's own serialization."""

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from mmer_jax.data.builders.examples import locate

VALUES = st.dictionaries(st.text(max_size=12), st.binary(max_size=400), max_size=5)


def serialized(values, **others):
    features = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        for name, value in values.items()
    }
    return tf.train.Example(
        features=tf.train.Features(feature=features | others)
    ).SerializeToString()


@given(VALUES)
def test_every_value_is_found(values):
    record = serialized(values)
    found = {name: record[start : start + size] for name, (start, size) in locate(record).items()}
    assert found == values


def test_other_kinds_of_features_are_passed_over():
    numbers = tf.train.Feature(int64_list=tf.train.Int64List(value=[1, 300]))
    several = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"x", b"y"]))
    record = serialized({"audio": b"abc"}, row=numbers, two=several, none=tf.train.Feature())
    assert list(locate(record)) == ["audio"]


@given(VALUES, st.data())
def test_a_cut_record_is_refused_or_has_less(values, data):
    record = serialized(values)
    cut = record[: data.draw(st.integers(0, len(record)))]
    try:
        found = locate(cut)
    except ValueError:
        found = {}
    assert all(start + size <= len(cut) for start, size in found.values())
    assert found.items() <= locate(record).items()


@given(st.binary(max_size=300))
def test_anything_else_is_a_value_error_or_nothing(record):
    try:
        found = locate(record)
    except ValueError:
        found = {}
    assert all(0 <= start <= start + size <= len(record) for start, size in found.values())


@pytest.mark.parametrize("record", [b"\x08\x01", b"\x0a\xff", b"\x0a" + b"\xff" * 12, b"\x0a\x05a"])
def test_what_is_wrong_is_said(record):
    with pytest.raises(ValueError, match="at byte"):
        locate(record)

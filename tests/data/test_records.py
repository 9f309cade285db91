"""TFRecords: the same features as the directory, in any order, built once, damage is named."""

import os

import numpy as np
import pytest
from helpers import write_features

from mmer_jax.data import feature_dir, pipeline
from mmer_jax.data.builders import feature_records
from mmer_jax.errors import UserError

MODALITIES = ("text", "audio", "face")


@pytest.fixture
def root(tmp_path):
    return write_features(tmp_path / "features")


def read(root, **args):
    return pipeline.read_records(root, MODALITIES, root.parent / "records", label="emotion", **args)


def test_records_hold_what_the_directory_holds(root):
    ours, theirs = read(root), feature_dir.read_directory(root, MODALITIES, label="emotion")
    batches = [np.array([3, 39, 0]), np.array([17]), np.array([5, 5, 6])]
    for a, b in zip(ours.stream(batches), theirs.stream(batches), strict=True):
        for name in MODALITIES:
            np.testing.assert_array_equal(a[name], b[name])
            assert a[name].dtype == b[name].dtype
    assert (ours.spec, ours.fingerprint) == (theirs.spec, theirs.fingerprint)
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    np.testing.assert_array_equal(ours.lengths["text"], theirs.lengths["text"])


def test_tfds_reads_the_same_records(root):
    import tensorflow_datasets as tfds

    records = feature_records.prepare(root, MODALITIES, root.parent / "records")
    builder = tfds.builder_from_directory(records.shards[0][0].parent)
    examples = list(tfds.as_numpy(builder.as_dataset(split="corpus", shuffle_files=False)))
    assert [e["row"] for e in examples] == list(range(40))
    assert examples[7]["utt_id"] == b"u7"
    corpus = read(root)
    np.testing.assert_array_equal(examples[7]["audio"][0], corpus.read(np.array([7]))["audio"][0])


def test_unchanged_source_is_reused_and_changed_source_is_rebuilt(root):
    def built():
        return feature_records.prepare(root, MODALITIES, root.parent / "records").built

    assert built()
    assert not built()
    os.utime(root / "audio.npz")  # touched, same content
    assert not built()
    with np.load(root / "audio.npz") as archive:
        features = archive["features"].copy()
    features[0, 0] += 1
    np.savez(root / "audio.npz", features=features)
    assert built()
    assert read(root).read(np.array([0]))["audio"][0, 0] == features[0, 0]


def test_an_unfinished_build_is_not_trusted(root):
    records = feature_records.prepare(root, MODALITIES, root.parent / "records")
    (records.folder / "source.json").unlink()
    assert feature_records.prepare(root, MODALITIES, root.parent / "records").built


def test_what_a_killed_build_has_left_is_cleared_away(root):
    place = root.parent / "records"
    folder = feature_records.prepare(root, MODALITIES, place).folder
    left = place / f".building-{folder.name.rpartition('-')[0]}-x7"
    others = place / ".building-of-another-y8"
    for leftover in (left, others):
        (leftover / "shards").mkdir(parents=True)
    (folder / "source.json").unlink()
    assert feature_records.prepare(root, MODALITIES, place).built
    assert not left.exists() and others.exists()


def test_truncated_and_missing_shards_are_named(root):
    shard = feature_records.prepare(root, MODALITIES, root.parent / "records").shards[2][0]
    data = shard.read_bytes()
    shard.write_bytes(data[:-5])
    with pytest.raises(UserError, match=f"{shard.name} is damaged .truncated in record"):
        read(root)
    shard.write_bytes(data[: len(data) // 2 - len(data) // 2 % 5])
    with pytest.raises(UserError, match="is damaged"):
        read(root)
    shard.unlink()
    with pytest.raises(UserError, match="is damaged .missing"):
        read(root)


def test_a_flipped_bit_is_found_when_its_record_is_read(root):
    shard = feature_records.prepare(root, MODALITIES, root.parent / "records").shards[3][0]
    data = bytearray(shard.read_bytes())
    data[40] ^= 1
    shard.write_bytes(data)
    corpus = read(root)
    (row,) = np.flatnonzero(corpus.source._shard_of == 3)[:1]
    others = np.flatnonzero(corpus.source._shard_of != 3)
    assert np.isfinite(corpus.read(others)["face"]).all()
    with pytest.raises(UserError, match=f"{shard.name} is damaged .in the record of row {row}"):
        corpus.read(np.array([0, row]))


@pytest.mark.parametrize("name", ["index.npz", "utterances.csv", "source.json"])
def test_a_damaged_file_beside_the_shards_makes_them_anew(root, name):
    whole = read(root)
    folder = feature_records.prepare(root, MODALITIES, root.parent / "records").folder
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    assert feature_records.prepare(root, MODALITIES, root.parent / "records").built
    again = read(root)
    assert again.fingerprint == whole.fingerprint
    assert again.columns["emotion"].tolist() == whole.columns["emotion"].tolist()


def test_processes_share_the_rows_among_them(root):
    source = read(root).source
    parts = [source.rows_of_process(i, 3) for i in range(3)]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(40))
    shards = [set(source._shard_of[part]) for part in parts]
    assert not shards[0] & shards[1] and not shards[1] & shards[2]


def test_nonfinite_policy_is_applied_when_reading(root):
    with np.load(root / "face.npz") as archive:
        features = archive["features"].copy()
    features[3] = np.nan
    np.savez(root / "face.npz", features=features)
    with pytest.raises(UserError, match="face.npz: 1 utterance.s. .* u3"):
        read(root)
    corpus = read(root, nonfinite="missing")
    assert not corpus.present[3, 2] and not corpus.read(np.array([3]))["face"].any()

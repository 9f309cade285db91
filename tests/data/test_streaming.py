"""Streaming from records: what a resident corpus has, whoever reads at the same time."""

import threading

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers import write_features

from mmer_jax.data import feature_dir, feed, pipeline, stored
from mmer_jax.data.builders import feature_records
from mmer_jax.data.feed import Feed
from mmer_jax.data.units import make_grouping
from mmer_jax.errors import UserError
from mmer_jax.mesh import make_mesh
from mmer_jax.trials import epoch_order, stack_tables

MODALITIES = ("text", "audio", "face")
N = 150


def readers():
    return [t.name for t in threading.enumerate() if t.name.startswith("read-")]


@pytest.fixture
def root(tmp_path):
    dialogues = {
        "dialogue": np.array([f"d{i % 30}" for i in range(N)]),
        "turn": np.array([str(i // 30) for i in range(N)]),
    }
    return write_features(tmp_path / "features", N, extra=dialogues)


@pytest.fixture
def corpus(root):
    return read(root)


def read(root):
    return pipeline.read_records(root, MODALITIES, root.parent / "records", label="emotion")


def tables(corpus, unit, shuffle_buffer, trials=2):
    rows = np.arange(N)
    grouping = make_grouping(corpus, unit, history=3)
    return stack_tables(
        [
            epoch_order(
                grouping.units(rows[t::2], rows),
                4,
                seed=t,
                epoch=0,
                shuffle_buffer=shuffle_buffer,
                pack=grouping.pack,
            )
            for t in range(trials)
        ]
    )


def gathered(piece):
    """What a program reads of a piece: features, labels and lengths in each slot."""
    slots = np.asarray(piece.slots)
    found = jax.tree.map(lambda x: np.asarray(x)[np.maximum(slots, 0)], piece.resident)
    nothing = slots < 0
    for x in jax.tree.leaves(found):
        x[nothing] = 0
    return found, np.asarray(piece.rows), np.asarray(piece.counted)


@pytest.mark.parametrize("unit", ["utterance", "dialogue", "history"])
@pytest.mark.parametrize("shuffle_buffer", [0, 20])
@pytest.mark.parametrize("budget", [2e3, 1e6])
def test_pieces_are_those_of_a_resident_corpus(corpus, unit, shuffle_buffer, budget, monkeypatch):
    monkeypatch.setattr(feed, "MOST", 4)
    mesh = make_mesh(2, 4, n_devices=2)
    units = tables(corpus, unit, shuffle_buffer)
    streamed, resident = (
        Feed(corpus, mesh, placement=placement, memory_budget=budget)
        for placement in ("stream", "device")
    )
    pieces = [gathered(piece) for piece in streamed.pieces(units)]
    (whole,) = (gathered(piece) for piece in resident.pieces(units))
    assert len(pieces) > 1
    together = jax.tree.map(lambda *x: np.concatenate(x)[: len(units)], *pieces)
    jax.tree.map(np.testing.assert_array_equal, together, whole)
    assert not readers()


def test_several_streams_at_a_time_do_not_disturb_each_other(corpus):
    everything = {k: v.copy() for k, v in corpus.read(np.arange(N)).items()}
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        batches = [rng.integers(N, size=rng.integers(1, 90)) for _ in range(25)]
        for rows, features in zip(batches, corpus.stream(batches), strict=True):
            for name, x in features.items():
                if not np.array_equal(x, everything[name][rows]):
                    wrong.append((seed, name))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and not readers()


def test_a_batch_that_is_kept_keeps_its_numbers(corpus):
    batches = [np.arange(i, i + 30) for i in range(0, 120, 10)]
    kept = list(corpus.stream(batches))
    everything = corpus.read(np.arange(N))
    for rows, features in zip(batches, kept, strict=True):
        for name, x in features.items():
            np.testing.assert_array_equal(x, everything[name][rows])


def test_who_stops_early_leaves_no_thread(corpus):
    streamed = Feed(corpus, make_mesh(1, 4, n_devices=1), placement="stream", memory_budget=2e3)
    pieces = streamed.pieces(tables(corpus, "utterance", 0))
    next(pieces)
    assert readers()
    pieces.close()
    assert not readers()


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_damage_is_named_wherever_it_is_met(root, corpus, damage):
    shard = corpus.source._paths[3]
    whole = shard.read_bytes()
    if damage == "gone":
        shard.unlink()
    else:
        flipped = bytes([whole[60] ^ 1])
        shard.write_bytes(whole[:60] + flipped + whole[61:] if damage == "flipped" else whole[:200])
    mesh = make_mesh(1, 4, n_devices=1)
    streamed = Feed(corpus, mesh, placement="stream", memory_budget=2e3)
    what = {"flipped": "in the record of row", "cut": "in the record of row", "gone": "missing"}
    with pytest.raises(UserError, match=f"{shard.name} is damaged .{what[damage]}"):
        for _ in streamed.pieces(tables(corpus, "utterance", 0)):
            pass
    assert not readers()
    with pytest.raises(UserError, match=f"{shard.name} is damaged"):
        corpus.read(np.arange(N))


def test_a_shard_that_is_cut_after_its_records_were_checked(corpus):
    corpus.read(np.arange(N))
    shard = corpus.source._paths[3]
    shard.write_bytes(shard.read_bytes()[:200])
    with pytest.raises(UserError, match=f"{shard.name} is damaged .truncated in the record of row"):
        corpus.read(np.arange(N))


def test_records_of_another_shape_are_refused(corpus):
    corpus.source._steps[:, 0] += 1
    with pytest.raises(UserError, match="'text' of row .* bytes, not"):
        corpus.read(np.arange(N))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(1, 1), (3, 2), (18, 9), (35, 18), (36, 18), (37, 19), (41, 14), (898, 20)],
)
def test_pieces_leave_few_steps_empty(corpus, steps, expected):
    streamed = Feed(corpus, make_mesh(1, 4, n_devices=1), placement="stream", memory_budget=1e9)
    assert streamed._steps_per_piece(np.zeros((steps, 1, 4, 1))) == expected


def test_a_program_is_asked_again_only_when_it_has_answered(corpus, monkeypatch):
    """At most the piece in use, the next one and the one that is being read are in memory."""
    made = []
    put = feed.mesh_lib.put
    monkeypatch.setattr(feed.mesh_lib, "put", lambda *args: made.append(args[0]) or put(*args))
    streamed = Feed(corpus, make_mesh(1, 4, n_devices=1), placement="stream", memory_budget=2e3)
    for taken, _ in enumerate(streamed.pieces(tables(corpus, "utterance", 0)), start=1):
        assert sum(isinstance(x, dict) for x in made) <= taken + 1  # features of a piece


def test_records_beyond_the_memory_of_their_builder_are_the_same(root, monkeypatch):
    """TFDS sorts in memory up to a gigabyte, and above in files: here from the first record on."""
    expected = feature_dir.read_directory(root, MODALITIES, label="emotion").read(np.arange(N))
    monkeypatch.setattr(tfds.core.shuffle, "MAX_MEM_BUFFER_SIZE", 0)
    parts = []
    read_values = tfds.core.shuffle._Bucket.read_values

    def counted(self):
        found = list(read_values(self))
        parts.append(len(found))
        return found

    monkeypatch.setattr(tfds.core.shuffle._Bucket, "read_values", counted)
    found = read(root).read(np.arange(N))
    for name, x in found.items():
        np.testing.assert_array_equal(x, expected[name])
    assert sum(parts) == N and max(parts) <= 2


def test_features_stay_in_their_file_where_they_can(root):
    ids = feature_dir.read_utterances(root / "utterances.csv")["utt_id"]
    for name in MODALITIES:
        there = feature_dir.read_modality(root, name, ids, in_memory=False).features
        here = feature_dir.read_modality(root, name, ids).features
        assert isinstance(there, stored.Stored) and there.nbytes == here.nbytes
        for rows in (slice(0, len(here)), slice(3, 7), slice(5, 5), slice(100, 10**6)):
            np.testing.assert_array_equal(there[rows], here[rows])
    with np.load(root / "face.npz") as archive:
        features = archive["features"].copy()
    for write in (
        lambda path: np.savez_compressed(path, features=features),
        lambda path: np.savez(path, features=features.astype(np.float64)),
        lambda path: np.savez(path, features=features, utt_id=ids),
    ):
        write(root / "face.npz")
        found = feature_dir.read_modality(root, "face", ids, in_memory=False).features
        assert isinstance(found, np.ndarray)
        np.testing.assert_array_equal(found, features)


def test_a_file_that_changes_while_records_are_built_is_named(root, monkeypatch):
    ids = feature_dir.read_utterances(root / "utterances.csv")["utt_id"]
    features = feature_dir.read_modality(root, "face", ids, in_memory=False).features
    (root / "face.npz").write_bytes((root / "face.npz").read_bytes()[:500])
    with pytest.raises(UserError, match="face.npz has become shorter"):
        features[0:N]
    (root / "face.npz").unlink()
    with pytest.raises(UserError, match="face.npz can be read no more"):
        features[0:1]
    write_features(root, N)
    write_records = feature_records._write_records

    def written(*args):
        write_features(root, N, seed=1)
        return write_records(*args)

    monkeypatch.setattr(feature_records, "_write_records", written)
    with pytest.raises(UserError, match="has changed while its records were built"):
        read(root)

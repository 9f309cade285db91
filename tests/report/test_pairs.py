"""Which classes of two tasks go together."""

import numpy as np
import pytest

from mmer_jax.data.corpus import CorpusSpec, Task
from mmer_jax.data.synthetic import make_synthetic
from mmer_jax.errors import UserError
from mmer_jax.pairs import FILE, PairCounts, chance_ratio, count, cramers_v, read
from mmer_jax.report.figures.drawing import look, save
from mmer_jax.report.figures.pairs import pair_circles


def test_pairs_without_a_label_do_not_count():
    counts = count(np.array([0, 1, -1, 0, 0]), np.array([1, 0, 0, -1, 1]), (2, 3))
    assert counts.tolist() == [[0, 2, 0], [1, 0, 0]]


def test_cramers_v_from_independence_to_identity():
    assert cramers_v(np.outer([3, 5], [2, 4, 6])) == pytest.approx(0)
    assert cramers_v(np.diag([4, 1, 9])) == pytest.approx(1)
    # χ² = 100 · (30·40 - 10·20)² / (40·60·50·50), V = √(χ² / 100)
    assert cramers_v(np.array([[30, 10], [20, 40]])) == pytest.approx(np.sqrt(1 / 6))
    assert cramers_v(np.array([[5, 3], [0, 0]])) == 0 == cramers_v(np.zeros((2, 2)))


def test_times_as_often_as_by_chance():
    assert chance_ratio(np.outer([3, 5], [2, 4, 6])) == pytest.approx(np.ones((2, 3)))
    found = chance_ratio(np.array([[3, 1, 0], [1, 3, 0]]))
    assert found[:, :2] == pytest.approx(np.array([[1.5, 0.5], [0.5, 1.5]]))
    assert np.isnan(found[:, 2]).all() and np.isnan(chance_ratio(np.zeros((2, 2)))).all()


@pytest.fixture
def pairs(tmp_path):
    corpus = make_synthetic(n_utterances=40, label=("emotion", "intent"))
    counts = PairCounts(corpus.spec)
    counts.add(np.eye(8)[:2] + np.eye(8)[4:6])
    counts.add(np.eye(8)[:1] + np.eye(8)[4:5])
    counts.save(tmp_path, corpus)
    return tmp_path / FILE


def test_what_is_saved_is_read(pairs):
    found = read(pairs)
    assert found.names == ("emotion", "intent") and found.classes[1][0] == "agree"
    assert found.predictions[:2, :2].tolist() == [[2, 0], [0, 1]] and found.predictions.sum() == 3
    assert found.labels.sum() == 35  # every eighth has no intent
    assert read(pairs.with_name("none.npz")) is None


def test_a_damaged_file_is_named(pairs):
    with np.load(pairs) as file:
        stored = dict(file)
    np.savez(pairs, **{**stored, "labels": stored["labels"][:, :2]})
    with pytest.raises(UserError, match="pairs.npz is damaged .*delete it"):
        read(pairs)
    pairs.write_bytes(b"no archive")
    with pytest.raises(UserError, match="pairs.npz is damaged"):
        read(pairs)


def test_one_task_leaves_no_file(pairs, tmp_path):
    single = CorpusSpec((), (Task("emotion", ("a", "b")),))
    counts = PairCounts(single)
    counts.add(np.eye(2))
    counts.save(tmp_path, None)
    assert not pairs.exists()


def test_the_picture_has_both_and_their_numbers(pairs, tmp_path):
    with look():
        drawing = pair_circles(read(pairs))
        save(drawing, tmp_path / "figures", "pairs")
    left, right, _ = drawing.figure.axes
    assert len(right.collections[0].get_sizes()) == 2  # a circle for each pair that occurs
    assert left.get_ylabel() == "emotion" and right.get_xlabel() == "intent"
    rows = [row for row in drawing.rows if row[0] == "predictions"]
    assert len(rows) == 16 and sum(row[4] for row in rows) == 3
    # "angry" twice with "agree", "happy" once with "ask": 3/2 and 3 times as often as by chance.
    np.testing.assert_allclose(right.collections[0].get_array(), np.log2([1.5, 3]))
    assert (tmp_path / "figures" / "pairs.png").stat().st_size > 5000

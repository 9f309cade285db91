"""What the report says of hardness.csv: agreement of labels, error against hardness."""

import re

import numpy as np
import pytest
from report_workdirs import Workdir, write_csv

from mmer_jax.errors import UserError
from mmer_jax.report import tables
from mmer_jax.report.document import Document
from mmer_jax.report.figures.drawing import look
from mmer_jax.report.figures.neighbours import hardness_and_agreement
from mmer_jax.report.merge import group_runs
from mmer_jax.report.neighbours import error_by_measure, label_distance, rank_correlation, read
from mmer_jax.report.runs import load_run
from mmer_jax.report.sections import GroupSections
from mmer_jax.study import FIRST

# Of one trial under one pattern: label, error, hardness, and the labels of two neighbours.
LINES = [
    ("a", 0, 0.5, "a", "a"),
    ("a", 0, 0.6, "a", "b"),
    ("b", 1, 0.9, "a", ""),
    ("b", 1, 0.8, "", ""),
]


def write(path, lines, measures=("hardness",), trials=((0, 0),), patterns=("audio",)):
    header = [*FIRST, *measures, "neighbour1", "label1", "neighbour2", "label2"]
    rows = [
        [*trial, split, pattern, f"u{i}", label, label, error, *([hardness] * len(measures))]
        + ["x", first, "y", second]
        for trial in trials
        for pattern in patterns
        for split in ("test", "train")
        for i, (label, error, hardness, first, second) in enumerate(lines)
    ]
    write_csv(path, header, rows)
    return path


def test_numbers_of_classes(tmp_path):
    study = read(write(tmp_path / "h.csv", LINES), classes=True)
    assert len(study.error) == 4  # of test utterances alone
    lines = study.parts("audio")[0]
    assert label_distance(study, lines, 1) == pytest.approx((0 + 0 + 1) / 3)
    # Of the neighbours that have a label; the last utterance has none.
    assert label_distance(study, lines, 2) == pytest.approx((0 + 0.5 + 1) / 3)
    assert label_distance(study, lines, 3) is None  # there are two
    assert study.chance == {(0, 0): pytest.approx(0.5)}
    assert error_by_measure(study, lines, 2) == (
        [pytest.approx(0.55), pytest.approx(0.85)],
        [0.0, 1.0],
    )
    assert error_by_measure(study, lines, 5) is None
    assert rank_correlation(study, lines) == pytest.approx(2 / np.sqrt(5))


def test_numbers_of_real_values(tmp_path):
    lines = [("0.5", 0.1, 0.5, "1.5", "0.5"), ("-1", 0.3, 0.6, "-1", ""), ("", "", 0.7, "2", "2")]
    study = read(write(tmp_path / "h.csv", lines), classes=False)
    found = study.parts("audio")[0]
    assert label_distance(study, found, 1) == pytest.approx((1 + 0) / 2)
    assert label_distance(study, found, 2) == pytest.approx((0.5 + 0) / 2)
    assert study.chance == {(0, 0): pytest.approx(0.75)}  # half the pairs are an utterance twice
    assert error_by_measure(study, found, 2) == ([0.5, 0.6], [0.1, 0.3])


def test_chance_is_the_mean_over_all_pairs(tmp_path):
    labels = np.random.default_rng(0).normal(size=30).round(3)
    lines = [(str(label), 0, 0.5, "0", "0") for label in labels]
    chance = read(write(tmp_path / "h.csv", lines), classes=False).chance[0, 0]
    assert chance == pytest.approx(np.abs(labels[:, None] - labels).mean())


def test_without_a_measure_there_are_neighbours_alone(tmp_path):
    study = read(write(tmp_path / "h.csv", LINES, measures=()), classes=True)
    lines = study.parts("audio")[0]
    assert study.measure is None and rank_correlation(study, lines) is None
    assert tables.hardness_table({"x": study}) is None
    with look():
        assert len(hardness_and_agreement(study).figure.axes) == 1


def test_constant_hardness_correlates_with_nothing(tmp_path):
    lines = [(label, error, 0.5, *more) for label, error, _, *more in LINES]
    study = read(write(tmp_path / "h.csv", lines), classes=True)
    assert rank_correlation(study, study.parts("audio")[0]) is None
    assert tables.hardness_table({"x": study}).rows[0][-1] == ""


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("utt_id", "name"),
        lambda text: text.replace("0.9", "much"),
        lambda text: text + "0,0,test,audio\n",
        lambda text: "",
        lambda text: "\0",
    ],
)
def test_a_damaged_file_is_named(tmp_path, change):
    path = write(tmp_path / "hardness.csv", LINES)
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match="hardness.csv is damaged .*delete it"):
        read(path, classes=True)


def test_nothing_to_read(tmp_path):
    assert read(tmp_path / "none.csv", classes=True) is None
    path = write(tmp_path / "h.csv", [])
    assert read(path, classes=True) is None


def test_the_section(tmp_path):
    made = Workdir(tmp_path / "one", "hardy", classes=("a", "b"))
    made.add_confusion((0, 0), "full", "audio+text+visual", np.eye(2, dtype=int) + 1)
    workdir = made.write()
    trials, patterns = ((0, 0), (1, 0)), ("audio", "audio+text")
    write(workdir / "hardness.csv", LINES * 4, trials=trials, patterns=patterns)
    (group,) = group_runs([load_run(workdir)])
    document = Document(tmp_path / "out")
    with look():
        GroupSections(document, group, level=2, prefix="").neighbours()
    text = document.write().read_text()
    row = r"\| audio\+text \| 66.7 ± 0.0 \| +\| +\| 50.0 ± 0.0 \|"  # no third neighbour
    assert re.search(row, text), text
    row = r"\| audio \| hardness \| 0.0 ± 0.0 \| 0.0 ± 0.0 \| 100.0 ± 0.0 \| 100.0 ± 0.0 \| 0.894"
    assert re.search(row, text), text
    numbers = (tmp_path / "out" / "figures" / "neighbours-hardy.csv").read_text()
    assert "neighbours,audio,2,50" in numbers and "chance,,,50" in numbers
    assert "error,audio+text,0.5," in numbers

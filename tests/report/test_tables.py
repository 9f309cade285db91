"""Tables: golden numbers worked out by hand, and what stands in which cell."""

import io

import pytest
from report_workdirs import Workdir, full_workdir
from rich.console import Console

from mmer_jax.report import tables, terminal_table
from mmer_jax.report.curves import areas, mean_interval
from mmer_jax.report.figures.sweep import sweep_scores
from mmer_jax.report.runs import load_run
from mmer_jax.report.scores import COLUMN_MEAN, POOLED, collect
from mmer_jax.report.sweep import read_sweep

TWO = ("no", "yes")


@pytest.fixture
def workdir(tmp_path):
    """Two trials, two modalities, two classes.

    Trial 0: audio has recalls 1 and 0 of 8 and 2 utterances, text 1/2 and 1. Pooled: 12 of 16 and
    2 of 4, so WA 14/20 = 0.7 and UA (0.75 + 0.5)/2 = 0.625; the mean of the columns' WA is
    (0.8 + 0.6)/2 = 0.7 and of their UA (0.5 + 0.75)/2 = 0.625.
    Trial 1: audio with 2 classes of 1 and 1, all wrong; text all right, of 6 and 2: pooled WA 8/10,
    UA (6/7 + 2/3)/2; mean of the columns 0.5.
    """
    made = Workdir(tmp_path / "run", classes=TWO, modalities=("audio", "text"))
    made.add_confusion((0, 0), "full", "audio+text", [[8, 0], [0, 2]])
    made.add_confusion((0, 0), "pattern", "audio", [[8, 0], [2, 0]])
    made.add_confusion((0, 0), "pattern", "text", [[4, 4], [0, 2]])
    made.add_confusion((0, 1), "full", "audio+text", [[4, 4], [0, 2]])
    made.add_confusion((0, 1), "pattern", "audio", [[0, 1], [1, 0]])
    made.add_confusion((0, 1), "pattern", "text", [[6, 0], [0, 2]])
    for trial, scores in (((0, 0), (0.9, 0.6, 0.4)), ((0, 1), (0.7, 0.6, 0.2))):
        for rate, score in zip(("0.0", "0.4", "0.6"), scores, strict=True):
            made.add(trial, "rate", rate, {"WA": score, "effective_rate": float(rate) - 0.01})
    made.write()
    return made


@pytest.fixture
def scores(workdir):
    return load_run(workdir.path).scores


def test_pooled_scores_come_from_summed_counts(scores):
    pooled = scores.values["average", POOLED]
    assert pooled["WA"] == pytest.approx({(0, 0): 0.7, (0, 1): 0.8})
    assert pooled["UA"] == pytest.approx({(0, 0): 0.625, (0, 1): (6 / 7 + 2 / 3) / 2})


def test_column_mean_is_of_the_patterns_scores(scores):
    mean = scores.values["average", COLUMN_MEAN]
    assert mean["WA"] == pytest.approx({(0, 0): 0.7, (0, 1): 0.5})
    assert mean["UA"] == pytest.approx({(0, 0): 0.625, (0, 1): 0.5})


def test_pattern_table(scores):
    (table,) = tables.pattern_tables({"ifmmin": scores})
    assert table.header == ["available", "WA", "UA", "macro_F1", "weighted_F1"]
    cells = {row[0]: row[1:3] for row in table.rows}
    assert list(cells) == ["audio+text", "audio", "text", POOLED, COLUMN_MEAN]
    # WA 1.0 and 0.6; UA 1.0 and 0.75: mean and half the difference.
    assert cells["audio+text"] == ["80.0 ± 20.0", "87.5 ± 12.5"]
    assert cells[POOLED] == ["75.0 ± 5.0", "69.3 ± 6.8"]
    assert cells[COLUMN_MEAN] == ["60.0 ± 10.0", "56.2 ± 6.2"]


def test_rate_table_names_nominal_and_effective_rate(workdir):
    workdir.rows.reverse()  # rates are put in order
    scores = load_run(workdir.write()).scores
    (table,) = tables.rate_tables({"ifmmin": scores}, "rate")
    assert [row[0] for row in table.rows] == ["0.0", "0.4", "0.6"]
    assert table.header == ["nominal rate", "effective rate", "WA"]
    assert table.rows[1] == ["0.4", "0.39", "60.0 ± 0.0"] and table.names == 2


def test_area_is_the_mean_height_of_the_curve(scores):
    # Trial 0: (0.4·(0.9+0.6)/2 + 0.2·(0.6+0.4)/2) / 0.6 = 0.4/0.6; trial 1: (0.26 + 0.08)/0.6.
    assert areas(scores, "rate", "WA") == pytest.approx({(0, 0): 0.4 / 0.6, (0, 1): 0.34 / 0.6})
    table = tables.area_table({"ifmmin": scores})
    assert table.rows == [["ifmmin", "missing rate", "61.7 ± 5.0"]]


def test_a_trial_without_all_rates_has_no_area(workdir):
    workdir.rows = [r for r in workdir.rows if not (r[3] == 1 and r[6] == "0.4")]
    workdir.write()
    assert list(areas(load_run(workdir.path).scores, "rate", "WA")) == [(0, 0)]


def test_interval_of_the_mean():
    # Of 1, 2, 3: s = 1, half width t(0.975; 2)/√3 = 4.302653/1.732051.
    assert mean_interval([1, 2, 3]) == pytest.approx((2, 2 - 2.484138, 2 + 2.484138), abs=1e-5)
    assert mean_interval([0.5]) == (0.5, 0.5, 0.5)


def test_methods_stand_side_by_side_with_the_best_marked(tmp_path):
    runs = {}
    for method, wa, mae in (("a", (0.5, 0.7), 1.0), ("b", (0.4, 0.6), 0.8)):
        made = Workdir(tmp_path / method, method)
        for seed, score in enumerate(wa):
            made.add((0, seed), "full", "audio+text+visual", {"WA": score, "MAE": mae})
        runs[method] = load_run(made.write()).scores
    (table,) = tables.pattern_tables(runs)
    assert table.header == ["available", "WA a", "WA b", "MAE a", "MAE b"]
    assert table.rows[0][1:] == ["60.0 ± 10.0", "50.0 ± 10.0", "1.000 ± 0.000", "0.800 ± 0.000"]
    assert table.best == {(0, 1), (0, 4)}  # the higher WA, the lower MAE


def test_a_method_without_a_condition_has_an_empty_cell(tmp_path):
    a, b = Workdir(tmp_path / "a", "a"), Workdir(tmp_path / "b", "b")
    a.add((0, 0), "full", "audio+text+visual", {"WA": 0.5})
    b.add((0, 0), "pattern", "audio", {"WA": 0.25})
    runs = {w.method: load_run(w.write()).scores for w in (a, b)}
    (table,) = tables.pattern_tables(runs)
    assert [row[1:] for row in table.rows[:2]] == [["50.0", ""], ["", "25.0"]]


def test_many_methods_split_their_metrics_over_tables(tmp_path):
    scores = load_run(full_workdir(tmp_path / "run", folds=1, seeds=1, extras=False)).scores
    for n, metrics in ((1, [4]), (2, [2, 2]), (3, [2, 2]), (5, [1, 1, 1, 1])):
        found = tables.pattern_tables({f"m{i}": scores for i in range(n)})
        assert [len(table.header) - 1 for table in found] == [n * size for size in metrics]
    assert [t.header[1] for t in found] == ["WA m0", "UA m0", "macro_F1 m0", "weighted_F1 m0"]


def test_recall_per_class(scores):
    table = tables.recall_table(scores, TWO)
    cells = {row[0]: row[1:] for row in table.rows}
    assert cells["audio+text"] == ["75.0 ± 25.0", "100.0 ± 0.0"]
    assert cells["audio"] == ["50.0 ± 50.0", "0.0 ± 0.0"]


def test_sweep_table(tmp_path):
    (tmp_path / "sweep.csv").write_text(
        "point,fold,seed,validation_score,best_epoch,chosen,stages.ifmmin.learning_rate\n"
        "0,0,0,0.5,3,0,0.001\n1,0,0,0.6,4,1,0.1\n2,0,0,nan,1,0,10\n"
        "0,1,0,0.7,9,0,0.001\n1,1,0,0.6,2,1,0.1\n2,1,0,0.1,1,0,10\n"
    )
    points = read_sweep(tmp_path / "sweep.csv")
    table = tables.sweep_table(points, "UA")
    assert table.header[1:3] == ["stages.ifmmin.learning_rate", "validation UA"]
    assert table.rows == [
        ["0", "0.001", "60.0 ± 10.0", "2", ""],
        ["1", "0.1", "60.0 ± 0.0", "2", "chosen"],
        ["2", "10", "diverged", "2", ""],
    ]
    drawing = sweep_scores(points, "UA")
    assert [list(row[:4]) for row in drawing.rows] == [
        ["stages.ifmmin.learning_rate", 0, 0.001, pytest.approx(60)],
        ["stages.ifmmin.learning_rate", 1, 0.1, pytest.approx(60)],
    ]
    assert drawing.figure.axes[0].get_xscale() == "log"


def test_the_terminal_shows_patterns_averages_and_rates(workdir):
    text = io.StringIO()
    Console(file=text, width=120).print(terminal_table(load_run(workdir.path).results))
    lines = text.getvalue().splitlines()
    assert "ifmmin on iemocap: test scores, 1 fold × 2 seeds" in lines[0]
    names = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    rates = ["rate 0.0 (-0.01)", "rate 0.4 (0.39)", "rate 0.6 (0.59)"]
    assert names == ["audio+text", "audio", "text", POOLED, COLUMN_MEAN, *rates]
    ruled = [i for i, line in enumerate(lines) if line.startswith("├")]
    assert lines[ruled[0] + 1].startswith(f"│ {POOLED}")
    assert lines[ruled[1] + 1].startswith("│ rate 0.0")


def test_scores_of_no_pattern_have_no_average(workdir):
    workdir.rows = [row for row in workdir.rows if row[5] == "rate"]
    workdir.write()
    scores = collect(load_run(workdir.path).results)
    assert not scores.conditions("average") and scores.metrics("rate") == ["WA"]

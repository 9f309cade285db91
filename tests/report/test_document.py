"""The report as its reader gets it: a self-contained page, figures with numbers, all sections."""

import base64
import json
import re

import numpy as np
import pytest
from report_workdirs import Workdir, full_workdir, read_csv

from mmer_jax.report import tables, write_report
from mmer_jax.report.document import escape, table_markdown
from mmer_jax.report.figures.projection import principal_plane
from mmer_jax.report.figures.training import training_curves
from mmer_jax.report.runs import load_run
from mmer_jax.report.tables import Table

STEMS = {
    "class_recall", "confusion-ifmmin", "confusion-mmin", "dialogue_rate_curves", "noise_curves-ua",
    "noise_curves-wa", "projection-ifmmin", "rate_curves", "sweep-ifmmin", "training-ifmmin",
    "training-mmin",
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two methods with everything a report can show; returns (workdirs, report folder)."""
    root = tmp_path_factory.mktemp("report")
    workdirs = [
        full_workdir(root / "one", "ifmmin", skill=0.75, seed=1),
        full_workdir(root / "two", "mmin", skill=0.6, seed=2, extras=False),
    ]
    path = write_report(root / "out", workdirs, facts={"device": "a|b *c*"})
    assert path == root / "out" / "report.md"
    return workdirs, root / "out"


def little(path, **changes):
    """A trial with all modalities only: two figures, drawn quickly."""
    made = Workdir(path, **changes)
    made.add_confusion((0, 0), "full", "audio+text+visual", np.eye(4, dtype=int) + 1)
    return made.write()


def test_every_figure_has_three_files_and_is_linked(made):
    _, out = made
    files = {path.name for path in (out / "figures").iterdir()}
    assert files == {f"{stem}.{kind}" for stem in STEMS for kind in ("png", "svg", "csv")}
    linked = re.findall(r"!\[.*?\]\((.*?)\)", (out / "report.md").read_text())
    assert sorted(linked) == sorted(f"figures/{stem}.png" for stem in STEMS)
    for link in linked:
        header = (out / link).read_bytes()[:24]
        assert header[:8] == b"\x89PNG\r\n\x1a\n"
        assert int.from_bytes(header[16:20]) >= 150 * 4  # pixels: at least 150 dpi on 4 inches


def test_the_page_is_self_contained(made):
    _, out = made
    page = (out / "report.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == len(STEMS)
    for source in sources:
        kind, data = source.split(",")
        assert kind == "data:image/svg+xml;base64"
        svg = base64.b64decode(data).decode()
        assert "<svg" in svg and not re.search(r'href="(?!#|data:)', svg)
    assert "url(" not in page and "@import" not in page and "<script" not in page
    assert not re.search(r"https?://", page)


def test_the_same_runs_give_the_same_files(made, tmp_path):
    workdirs, out = made
    write_report(tmp_path / "again", workdirs, facts={"device": "a|b *c*"})
    for path in out.rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(out)).read_bytes()


def test_sections_and_notes(made):
    _, out = made
    text = (out / "report.md").read_text()
    assert text.startswith("# ifmmin, mmin on iemocap, emotion4: test scores, 3 folds × 2 seeds\n")
    for expected in (
        "| missing, pooled |", "| missing, mean |", "'missing, pooled': predictions under all",
        "## Missing rates", "## Missing rates per dialogue", "## Imbalanced missing rates",
        "95 % t-interval of the mean over folds and seeds (3 folds × 2 seeds)",
        "## Area under the rate curve", "## Noise", "## Significance of differences",
        "## Confusion matrices", "## Recall per class", "## Sweep of ifmmin", "| chosen |",
        "the chosen point's trials", "## Invariant features", "- label: emotion4",
        "- splits: session_speaker", "- modalities: audio, text, visual",
        "- device: a\\|b \\*c\\*",
    ):  # fmt: skip
        assert expected in text, expected


def test_numbers_beside_the_rate_curves_are_the_tables(made):
    workdirs, out = made
    methods = {run.method: run.scores for run in map(load_run, workdirs)}
    cells = {}
    for table in tables.rate_tables(methods, "rate"):
        for row in table.rows:
            for name, cell in zip(table.header[2:], row[2:], strict=True):
                metric, method = name.split()
                cells[method, metric, row[0]] = (row[1], cell.split(" ± ")[0])
    rows = read_csv(out / "figures" / "rate_curves.csv")
    assert len(rows) == 2 * 2 * 8
    for row in rows:
        effective, mean = cells[row["method"], row["metric"], f"{float(row['nominal_rate']):.1f}"]
        assert f"{float(row['mean']):.1f}" == mean
        assert f"{float(row['effective_rate']):.2f}" == effective
        assert float(row["low"]) < float(row["mean"]) < float(row["high"])


def test_numbers_beside_other_figures(made):
    workdirs, out = made
    run = load_run(workdirs[0])
    recall = {tuple(row[:1]): row[1:] for row in tables.recall_table(run.scores, run.classes).rows}
    for row in read_csv(out / "figures" / "class_recall.csv"):
        if row["method"] == "ifmmin":
            cell = recall[row["available"],][run.classes.index(row["class"])]
            assert cell == f"{float(row['recall']):.1f} ± {float(row['std']):.1f}"
    matrix = read_csv(out / "figures" / "confusion-ifmmin.csv")
    full = [row for row in matrix if row["condition"].startswith("full")]
    counts = np.array([int(row["count"]) for row in full]).reshape(4, 4)
    assert counts.sum() == 6 * sum(40 + i for i in range(4))  # 6 trials
    percent = np.array([float(row["percent"]) for row in full]).reshape(4, 4)
    np.testing.assert_allclose(percent, 100 * counts / counts.sum(axis=1, keepdims=True), rtol=1e-5)


def test_training_curves_show_the_chosen_point(made):
    workdirs, out = made
    lines = [json.loads(x) for x in (workdirs[0] / "metrics.jsonl").read_text().splitlines()]
    losses = [
        x["loss"]
        for x in lines
        if x["trial"] == "point 0" and x["stage"] == "ifmmin" and x["epoch"] == 3
    ]
    (row,) = [
        row
        for row in read_csv(out / "figures" / "training-ifmmin.csv")
        if (row["stage"], row["quantity"], row["epoch"]) == ("ifmmin", "loss", "3")
    ]
    shown = [float(row[name]) for name in ("mean", "min", "max", "trials")]
    assert shown == pytest.approx([np.mean(losses), min(losses), max(losses), 6], rel=1e-5)


@pytest.mark.parametrize("first, scale", [(8000.0, "log"), (2.0, "linear")])
def test_a_steep_loss_is_drawn_on_a_logarithmic_axis(first, scale):
    losses = [first, 1.0, 0.5]
    epochs = [
        {"stage": "a", "epoch": e, "fold": 0, "seed": 0, "loss": loss, "validation_score": 0.5}
        for e, loss in enumerate(losses, start=1)
    ]
    figure = training_curves(epochs, "UA").figure
    assert [axes.get_yscale() for axes in figure.axes] == ["linear", scale]


def test_scores_of_all_stages_are_in_view():
    epochs = [
        {"stage": s, "epoch": e, "fold": 0, "seed": 0, "loss": 1.0, "validation_score": score}
        for s, scores in (("a", (0.1, 0.2)), ("b", (0.6, 0.9)), ("c", (0.3, 0.05)))
        for e, score in enumerate(scores, start=1)
    ]
    limits = [axes.get_ylim() for axes in training_curves(epochs, "UA").figure.axes[:3]]
    assert len(set(limits)) == 1 and limits[0][0] < 5 and limits[0][1] > 90


def test_principal_plane_keeps_what_varies_most():
    x = np.zeros((4, 3))
    x[:, 2], x[:, 0] = [3, -3, 3, -3], [1, 1, -1, -1]
    plane, share = principal_plane(x + 7)
    np.testing.assert_allclose(plane, np.stack([x[:, 2], x[:, 0]], axis=1), atol=1e-12)
    np.testing.assert_allclose(share, [0.9, 0.1])
    plane, share = principal_plane(np.array([[1.0], [3.0]]))  # a single feature
    np.testing.assert_allclose(plane, [[-1, 0], [1, 0]])


@pytest.mark.parametrize("extras", [True, False])
def test_real_valued_labels_and_a_single_trial(tmp_path, extras):
    workdir = full_workdir(
        tmp_path / "run", dataset="mosi", classes=(), skill=1.2, folds=1, seeds=1, extras=extras
    )
    text = write_report(tmp_path / "out", [workdir]).read_text()
    assert "1 fold × 1 seed" in text and "One trial: no band." in text and "nan" not in text
    assert "| available | MAE | pearson |" in text and "| missing, mean |" in text
    assert "| missing, pooled |" not in text and "Confusion" not in text


def test_protocols_may_be_absent(tmp_path):
    made = Workdir(tmp_path / "run", masks={})
    made.add((0, 0), "full", "audio+text+visual", {"WA": 0.5})
    text = write_report(tmp_path / "out", [made.write()]).read_text()
    assert "| audio+text+visual | 50.0 |" in text and "![" not in text
    assert re.findall("^## (.*)", text, re.M) == [
        "Available modalities",
        "Runs",
        "About this report",
    ]


def test_groups_are_sections_with_figures_of_their_own(tmp_path):
    workdirs = [little(tmp_path / name, dataset=name) for name in ("iemocap", "meld")]
    text = write_report(tmp_path / "out", [*workdirs, workdirs[0]]).read_text()  # one given twice
    assert text.startswith("# Test scores of 2 runs")
    assert "## ifmmin on meld, emotion4: test scores, 1 fold × 1 seed" in text
    names = {path.stem for path in (tmp_path / "out" / "figures").iterdir()}
    assert {"1-iemocap-emotion4-class_recall", "2-meld-emotion4-class_recall"} <= names


def test_labels_of_one_file_name_do_not_share_a_file(tmp_path):
    workdirs = [little(tmp_path / name) for name in ("a b", "a-b")]
    out = write_report(tmp_path / "out", workdirs).parent
    names = {path.name for path in (out / "figures").iterdir()}
    assert {"confusion-ifmmin-a-b.csv", "confusion-ifmmin-a-b-2.csv"} <= names


def test_names_are_shown_as_they_are(tmp_path):
    odd = ("a|b", "$\\x$", "*loud*", "<i>&amp;")
    workdir = little(tmp_path / "run", classes=odd)
    out = write_report(tmp_path / "out", [workdir]).parent
    page = (out / "report.html").read_text()
    for shown in ("a|b", "$\\x$", "*loud*", "&lt;i&gt;&amp;amp;"):
        assert f">{shown}</th>" in page


def test_markdown_tables():
    table = Table(["name", "x"], [["a_b", "1"], ["_c_", "2"]], best=frozenset({(1, 1)}))
    assert table_markdown(table).splitlines() == [
        "| name | x |",
        "|---|---:|",
        "| a_b | 1 |",
        "| \\_c\\_ | **2** |",
    ]
    assert escape("macro_F1\nnext") == "macro_F1 next"

"""Every point of a sweep as a run of its own, and one report."""

import io
from unittest import mock

import pytest
from helpers import shrunk
from places import ROOT
from rich.console import Console

from configs import demo, ei2, hardy, ramer
from mmer_jax import ablation
from mmer_jax.sweep import load_sweep, single_point


def points_of(tmp_path, body):
    (tmp_path / "sweep.py").write_text(f"def sweep():\n    {body}\n")
    return load_sweep(tmp_path / "sweep.py", shrunk(demo.get_config()))


def test_folders_are_named_by_what_a_point_changes(tmp_path):
    rate, other = "stages.ifmmin.learning_rate", "stages.utt_shared.learning_rate"
    body = f"yield {{}}; yield {{{rate!r}: 0.1}}; yield {{{other!r}: 0.1}}; "
    points = points_of(tmp_path, body + "yield {'model.classifier': [8, 4], 'model.blocks': 2}")
    assert ablation.names(points) == [
        "as_configured", f"{rate}=0.1", f"{other}=0.1", "classifier=8_4,blocks=2",
    ]  # fmt: skip
    assert ablation.names(single_point(demo.get_config())) == ["as_configured"]


@pytest.mark.parametrize(("method", "least"), [("ramer", 5), ("hardy", 10), ("ei2", 6)])
def test_the_shipped_ablations_have_a_folder_for_each_point(method, least):
    config = {"ramer": ramer, "hardy": hardy, "ei2": ei2}[method].get_config()
    points = load_sweep(ROOT / "configs" / "sweeps" / f"{method}_ablation.py", config)
    found = ablation.names(points)
    assert len(set(found)) == len(found) >= least and found[0] == "as_configured"


def test_each_point_is_run_and_then_compared(tmp_path):
    points = points_of(tmp_path, "yield {}; yield {'model.blocks': 1}")
    console = Console(file=io.StringIO(), width=200)
    with mock.patch.object(ablation, "run") as run, mock.patch.object(ablation, "report") as report:
        ablation.run_each(points, tmp_path / "all", console)
    folders = [tmp_path / "all" / name for name in ("as_configured", "blocks=1")]
    assert [(c.args[0].model.blocks, c.args[1]) for c in run.call_args_list] == [
        (2, folders[0]),
        (1, folders[1]),
    ]
    report.write_report.assert_called_once_with(tmp_path / "all" / "report", folders)
    assert "run 2 of 2: blocks=1" in console.file.getvalue()


def test_workers_compare_the_runs_once_all_are_scored(tmp_path):
    points = points_of(tmp_path, "yield {}; yield {'model.blocks': 1}")
    console = Console(file=io.StringIO(), width=200)
    with mock.patch.object(ablation, "run") as run, mock.patch.object(ablation, "report") as report:
        ablation.run_each(points, tmp_path / "all", console, worker=3)
        assert [call.kwargs for call in run.call_args_list] == [{"worker": 3}] * 2
        assert not report.write_report.called
        assert "who ends last compares the runs" in console.file.getvalue()
        for name in ("as_configured", "blocks=1"):
            (tmp_path / "all" / name).mkdir(parents=True)
            (tmp_path / "all" / name / "evaluated.json").touch()
        ablation.run_each(points, tmp_path / "all", console, worker=3)
    assert report.write_report.called

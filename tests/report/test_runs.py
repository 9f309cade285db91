"""Reading and merging workdirs: what is refused, and with which words."""

import csv
import fcntl
import subprocess
import sys

import pytest
from report_workdirs import ROOT, Workdir, full_workdir

from mmer_jax.errors import UserError
from mmer_jax.report import write_report
from mmer_jax.report.merge import group_runs
from mmer_jax.report.runs import load_run

CONFUSION = [[5, 1, 0, 0], [1, 5, 0, 0], [0, 0, 4, 2], [0, 0, 3, 3]]


def small(path, method="ifmmin", trials=((0, 0),), rates=("0.0", "0.7"), **changes):
    workdir = Workdir(path, method, **changes)
    for trial in trials:
        workdir.add_confusion(trial, "full", "audio+text+visual", CONFUSION)
        for rate in rates:
            workdir.add(trial, "rate", rate, {"WA": 0.5, "UA": 0.5})
    return workdir.write()


def error_of(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return str(caught.value)


def groups_of(*workdirs):
    return group_runs([load_run(workdir) for workdir in workdirs])


def test_what_is_no_workdir_is_refused(tmp_path):
    assert "does not exist" in error_of(load_run, tmp_path / "nowhere")
    assert "no workdir of mmer_jax" in error_of(load_run, tmp_path)
    begun = small(tmp_path / "begun")
    (begun / "results.csv").unlink()
    assert "nothing is trained there yet" in error_of(load_run, begun)


@pytest.mark.parametrize(
    "name, text, expected",
    [
        ("config.json", "{", "is not a config.json of mmer_jax"),
        ("config.json", '{"config": {}, "corpus": {}}', "lacks method, data.label"),
        ("results.csv", "a,b\n1,2\n", "expected the columns method,dataset,fold"),
        ("metrics.jsonl", '{"loss": 1}\n{}\n', "line 1: no trial, fold, seed"),
        ("metrics.jsonl", 'nonsense\n{"loss": 1}\n', "line 1: no JSON in 'nonsense'"),
        ("sweep.csv", "point,fold\n0,0\n", "sweep.csv is damaged"),
        ("evaluated.json", "{}", "scoring was interrupted. Run mmer_jax.main on the workdir again"),
        ("invariants.npz", "no zip", "invariants.npz is damaged"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, text, expected):
    workdir = small(tmp_path / "run")
    (workdir / name).write_text(text)
    message = error_of(load_run, workdir)
    assert expected in message and str(workdir / name) in message


@pytest.mark.parametrize(
    "column, value, expected",
    [
        ("value", "much", "line 3: UA is 'much', expected a finite number"),
        ("value", "nan", "line 3: UA is 'nan', expected a finite number"),
        ("fold", "first", "invalid literal for int() with base 10: 'first'"),
        ("method", "mmin", "lines of several methods (ifmmin, mmin)"),
        ("metric", "confusion:sad", "'confusion:sad', expected confusion:truth>predicted"),
    ],
)
def test_faulty_lines_are_named(tmp_path, column, value, expected):
    workdir = small(tmp_path / "run")
    with (workdir / "results.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    rows[2][rows[0].index(column)] = value
    with (workdir / "results.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    message = error_of(load_run, workdir)
    assert expected in message and str(workdir / "results.csv") in message


def test_a_rate_must_be_a_number(tmp_path):
    message = error_of(load_run, small(tmp_path / "run", rates=("half",)))
    assert "condition 'half' of protocol rate" in message


def test_a_sweep_has_one_chosen_point(tmp_path):
    workdir = small(tmp_path / "run")
    header = "point,fold,seed,validation_score,best_epoch,chosen,lr\n"
    (workdir / "sweep.csv").write_text(header + "0,0,0,0.5,3,1,0.1\n1,0,0,0.4,3,1,0.2\n")
    assert "marks 2 points as chosen" in error_of(load_run, workdir)


def test_a_line_that_a_crash_cut_short_is_left_out(tmp_path):
    workdir = full_workdir(tmp_path / "run", folds=1, seeds=1, extras=False)
    whole = load_run(workdir).epochs
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "ifm')
    assert load_run(workdir).epochs == whole


def test_only_the_chosen_points_epochs_count(tmp_path):
    run = load_run(full_workdir(tmp_path / "run", folds=1, seeds=1))
    assert {record["trial"] for record in run.epochs} == {"point 0"} and len(run.epochs) == 12 + 20


def test_a_running_workdir_is_refused_but_not_its_own(tmp_path):
    workdir = small(tmp_path / "run")
    with (workdir / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "is still running; wait for it" in error_of(load_run, workdir)
        assert load_run(workdir, own=True).method == "ifmmin"
    assert load_run(workdir).method == "ifmmin"  # the lock is free again


def test_runs_are_grouped_by_what_they_were_trained_on(tmp_path):
    a, b = small(tmp_path / "a"), small(tmp_path / "b", "mmin")
    other = small(tmp_path / "c", "mmin", dataset="mosei", fingerprint="other")
    label = small(tmp_path / "d", config={"data.label": "emotion6"}, fingerprint="other")
    splits = small(tmp_path / "e", config={"data.splits": "session"})
    groups = groups_of(a, other, b, label, splits)
    assert [list(group.runs) for group in groups] == [
        ["ifmmin", "mmin"],
        ["mmin"],
        ["ifmmin"],
        ["ifmmin"],
    ]


def test_labels_tell_runs_of_one_method_apart(tmp_path):
    same = [small(tmp_path / "x" / "run"), small(tmp_path / "y" / "run")]
    paths = [small(tmp_path / "tuned"), small(tmp_path / "mmin", "mmin"), *same]
    assert list(groups_of(*paths)[0].runs) == [
        "ifmmin (tuned)",
        "mmin",
        f"ifmmin ({same[0]})",
        f"ifmmin ({same[1]})",
    ]


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"fingerprint": "beef"}, "corpus fingerprint 'f00d' in the first, 'beef' in the second"),
        ({"classes": ("angry", "happy", "sad", "neutral")}, "corpus classes ['angry'"),
        (
            {"masks": {"rate": "xyz"}},
            "masks of protocol rate have digest abc in the first, xyz in the",
        ),
        (
            {"rates": ("0.0", "0.5")},
            "conditions of protocol rate differ (0.7 only in the first, 0.5",
        ),
    ],
)
def test_runs_that_differ_are_not_compared(tmp_path, changes, expected):
    a, b = small(tmp_path / "a"), small(tmp_path / "b", "mmin", **changes)
    message = error_of(groups_of, a, b)
    assert expected in message and f"{a} and {b} cannot be compared" in message


def test_other_folds_are_not_compared(tmp_path):
    kfold = {"data.splits": "kfold", "data.kfold": 5}
    a = small(tmp_path / "a", config=kfold)
    b = small(tmp_path / "b", "mmin", config=kfold | {"data.kfold": 10})
    assert "data.kfold 5 in the first, 10 in the second" in error_of(groups_of, a, b)
    c = Workdir(tmp_path / "c", "mmin")
    c.add((0, 0), "full", "audio+text+visual", {"WA": 0.5}, n=99)
    message = error_of(groups_of, small(tmp_path / "d"), c.write())
    assert "fold 0 has 24 test utterances in the first, 99 in the second" in message


def test_a_protocol_that_only_one_has_is_no_difference(tmp_path):
    a = small(tmp_path / "a", masks={})
    b = small(tmp_path / "b", "mmin", rates=(), masks={"dialogue_rate": "1"})
    assert len(groups_of(a, b)) == 1


def test_the_command(tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "mmer_jax.report", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)

    wrong = run(tmp_path / "nowhere", f"--out={tmp_path / 'report'}")
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: workdir ")
    assert "Traceback" not in wrong.stderr and not (tmp_path / "report").exists()
    right = run(small(tmp_path / "run"), f"--out={tmp_path / 'report'}")
    assert right.returncode == 0 and f"{tmp_path}/report/report.md" in right.stdout, right.stderr


def test_misused_flags_give_one_line(capsys):
    from mmer_jax.report.__main__ import main

    for arguments in (["somewhere"], ["--out=x"], ["a", "--out=x", "--colour"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        lines = capsys.readouterr().err.splitlines()
        assert stopped.value.code == 2 and len(lines) == 1 and lines[0].startswith("error: ")


def test_a_report_needs_a_workdir_and_a_folder(tmp_path):
    assert "no workdir given" in error_of(write_report, tmp_path / "report", [])
    (tmp_path / "file").write_text("")
    message = error_of(write_report, tmp_path / "file", [small(tmp_path / "run")])
    assert "cannot be made" in message and "another --out" in message

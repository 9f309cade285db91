"""What a run writes down: metrics.jsonl after a resume, files that are replaced as a whole."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from mmer_jax import distributed
from mmer_jax.records import MetricsLog, Reporter, write_atomically


def test_resuming_drops_what_the_checkpoint_has_not_seen(tmp_path):
    log = MetricsLog(tmp_path)
    log.write([{"group": g, "epochs_done": e} for g in (0, 1) for e in (1, 2, 3)])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"group": 1, "epo')  # a crash cut it short
    log.rewind(1, 2)
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    kept = [(line["group"], line["epochs_done"]) for line in lines]
    assert kept == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)]


def lines_of(path):
    return [json.loads(x) for x in path.read_text().splitlines()]


def test_groups_of_workers_have_files_of_their_own_until_they_are_gathered(tmp_path):
    """Also a group that was begun without workers, and one that somebody still trains."""
    alone = MetricsLog(tmp_path)
    alone.write([{"group": "a", "epochs_done": e} for e in (1, 2, 3)])
    alone.write([{"group": "z", "epochs_done": 1}])
    one, two = (MetricsLog(tmp_path, by_group=True) for _ in range(2))
    one.rewind("a", 2)
    two.rewind("b", 0)
    one.write([{"group": "a", "epochs_done": 3, "again": True}])
    two.write([{"group": "b", "epochs_done": 1}])
    one.write([{"group": "a", "epochs_done": 4}])
    assert len(lines_of(tmp_path / "metrics.jsonl")) == 4  # nobody has touched it
    one.gather({"a", "z"})
    found = [(x["group"], x["epochs_done"]) for x in lines_of(tmp_path / "metrics.jsonl")]
    assert found == [("z", 1), ("a", 1), ("a", 2), ("a", 3), ("a", 4)]
    assert [path.name for path in (tmp_path / "metrics").iterdir()] == ["b.jsonl"]
    one.gather()
    assert len(lines_of(tmp_path / "metrics.jsonl")) == 6 and not (tmp_path / "metrics").exists()


def test_gathering_twice_changes_nothing(tmp_path, monkeypatch):
    """Ended after metrics.jsonl is written, before the groups' files are gone."""
    log = MetricsLog(tmp_path, by_group=True)
    log.write([{"group": "a", "epochs_done": e} for e in (1, 2)])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            log.gather()
    before = (tmp_path / "metrics.jsonl").read_bytes()
    log.gather()
    assert (tmp_path / "metrics.jsonl").read_bytes() == before != b""


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "results.csv"
    write_atomically(path, "one")
    write_atomically(path, "two")
    assert path.read_text() == "two" and list(tmp_path.iterdir()) == [path]


def test_each_stage_is_expected_at_its_own_pace():
    text = io.StringIO()
    reporter = Reporter(Console(file=text, width=100), {"teacher": 6, "student": 4})
    reporter.skip("teacher", 2)
    for seconds in (10.0, 10.0):
        reporter.epoch("teacher", 1, 3, "", seconds)
    reporter.epoch("student", 1, 2, "", 100.0)
    etas = [line.rsplit(" ", 1)[1] for line in text.getvalue().splitlines()]
    assert etas == ["00:01:10", "00:01:00", "00:05:20"]  # 2 · 10 s and 3 · 100 s are left


def test_only_the_first_process_writes_for_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "is_first", lambda: False)
    MetricsLog(tmp_path, tensorboard=True)
    assert not (tmp_path / "tensorboard").exists()

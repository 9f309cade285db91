"""What a run writes down: metrics.jsonl after a resume, files that are replaced as a whole."""

import io
import json

from rich.console import Console

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

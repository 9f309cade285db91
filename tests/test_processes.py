"""Several real processes carry out one run: the same numbers, one who writes, one end for all."""

import csv
import json
import shutil
import signal
import sys
import time

import numpy as np
import pytest
from helpers import write_features
from jax._src.clusters import cloud_tpu_cluster
from places import ROOT
from processes import FUSION, IFMMIN, in_processes, main_command, run, started

from mmer_jax import distributed
from mmer_jax.errors import UserError


def scores(workdir):
    """(what is scored, [n] values) of results.csv."""
    with (workdir / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [tuple(value for key, value in row.items() if key != "value") for row in rows]
    return names, np.array([float(row["value"]) for row in rows])


def assert_same(workdir, expected, rtol=1e-5):
    names, values = scores(workdir)
    assert names == scores(expected)[0]
    np.testing.assert_allclose(values, scores(expected)[1], rtol=rtol, atol=1e-6)


def losses(workdir):
    """Every number of metrics.jsonl that does not depend on the machine."""
    found = {}
    for line in (workdir / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        key = record["trial"], record["stage"], record["epoch"]
        assert key not in found, "a line stands there twice"
        found[key] = [record["loss"], record["gradient_norm"], record["validation_score"]]
    return found


def assert_same_training(workdir, expected):
    mine, theirs = losses(workdir), losses(expected)
    assert mine.keys() == theirs.keys()
    for key, values in mine.items():
        np.testing.assert_allclose(values, theirs[key], rtol=1e-5, err_msg=str(key))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The workdir of a run by one process, of TFRecords."""
    place = tmp_path_factory.mktemp("alone")
    write_features(place / "features", n=160)
    run(*of_records(place), f"--workdir={place}/w")
    return place


def of_records(place):
    return (
        *FUSION,
        "--config.data.source=records",
        f"--config.data.root={place}/features",
        f"--config.data.records_dir={place}/records",
        "--config.data.modalities=('text','audio','face')",
    )


def test_two_processes_give_the_results_of_one(alone, tmp_path):
    said = run(*of_records(alone), f"--workdir={tmp_path}/w", processes=2)
    assert said.count("utt_fusion epoch 6/6") == 1
    assert_same(tmp_path / "w", alone / "w")
    assert_same_training(tmp_path / "w", alone / "w")


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["device", "stream"])
def test_two_processes_share_the_batch(alone, tmp_path, placement):
    run(
        *of_records(alone),
        f"--workdir={tmp_path}/w",
        "--config.mesh.data=2",
        f"--config.data.placement={placement}",
        processes=2,
    )
    assert_same(tmp_path / "w", alone / "w")
    assert_same_training(tmp_path / "w", alone / "w")


@pytest.mark.long
def test_four_processes_give_the_results_of_one(tmp_path):
    """Two stages, with both axes of the mesh across processes."""
    run(*IFMMIN, f"--workdir={tmp_path}/one")
    run(*IFMMIN, f"--workdir={tmp_path}/four", "--config.mesh.data=2", processes=4)
    assert_same(tmp_path / "four", tmp_path / "one")
    assert_same_training(tmp_path / "four", tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("to", [0, 1])
def test_sigterm_to_one_stops_all_and_another_number_goes_on(alone, tmp_path, to):
    flags = (*of_records(alone), f"--workdir={tmp_path}/w")
    with started(*in_processes(2, *flags)) as running:
        running[0].until("epoch 2/6")
        running[to].process.send_signal(signal.SIGTERM)
        codes = [one.end(120) for one in running]
    assert codes == [143, 143], "\n".join(one.output for one in running)
    assert "checkpoint written; run the same command again" in running[0].output
    assert "resuming after" in run(*flags, JAX_NUM_CPU_DEVICES="4")
    assert_same(tmp_path / "w", alone / "w")
    assert_same_training(tmp_path / "w", alone / "w")


@pytest.mark.long
def test_sigkill_of_one_ends_all_and_another_number_goes_on(alone, tmp_path):
    flags = (*of_records(alone), f"--workdir={tmp_path}/w")
    with started(*in_processes(2, *flags)) as running:
        running[0].until("epoch 2/6")
        running[1].process.kill()
        assert running[0].end(3 * distributed.HEARTBEAT_SECONDS) != 0
    assert not (tmp_path / "w/results.csv").exists()
    assert "resuming after" in run(*flags, processes=4)
    assert_same(tmp_path / "w", alone / "w")


def test_what_one_process_lacks_ends_all(alone, tmp_path):
    """The second process does not find the data, for example on a disk of its own."""
    first, second = in_processes(2, *of_records(alone), f"--workdir={tmp_path}/w")
    second.append(f"--config.data.root={tmp_path}/nowhere")
    with started(first, second) as running:
        codes = [one.end(120) for one in running]
    assert codes == [2, 2]
    assert f"error: feature directory {tmp_path}/nowhere does not exist" in running[1].output
    assert "process 1 has ended" in running[0].output
    assert "Traceback" not in running[0].output + running[1].output


@pytest.mark.slow
def test_a_mistake_that_all_make_is_said_once(alone, tmp_path):
    flags = (*of_records(alone), "--config.data.splits=kfold", "--config.mesh.devices=1")
    with started(*in_processes(2, *flags, f"--workdir={tmp_path}/w")) as running:
        assert [one.end(120) for one in running] == [2, 2]
    said = running[0].output + running[1].output
    assert "mesh.devices=1; a run of several processes uses all of their 2 devices" in said


def test_processes_hear_the_same_and_the_store_does_not_grow():
    script = ROOT / "tests" / "words_of_processes.py"
    commands = [[sys.executable, script, *command[-3:]] for command in in_processes(2)]
    with started(*commands) as running:
        assert [one.end(120) for one in running] == [0, 0], running[0].output
    turns = [[[turn, "said by the first"], [1, turn], [1.0, 1.0]] for turn in range(3)]
    for one in running:
        assert f"{turns}" in one.output
        assert "\n2 words left" in one.output  # those of the last barrier, one a process


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_sigterm_in_scoring_ends_every_process_and_is_made_up_for(alone, tmp_path, count):
    workdir = tmp_path / "w"
    shutil.copytree(alone / "w", workdir)
    other = (*of_records(alone), f"--workdir={workdir}", "--config.eval.mask_seed=7")
    commands = in_processes(count, *other) if count > 1 else [main_command(*other)]
    with started(*commands) as running:
        running[0].until("labelled utterances")
        time.sleep(1)  # all is trained, so it scores
        running[-1].process.send_signal(signal.SIGTERM)
        assert [one.end(60) for one in running] == [143] * count, running[0].output
    run(*other)
    assert scores(workdir)[0] == scores(alone / "w")[0]


@pytest.mark.long
def test_a_process_may_come_late_to_a_program(tmp_path):
    """Gloo's patience ends after 30 s; a compilation may take longer in one process."""
    script = ROOT / "tests" / "late_process.py"
    commands = [[sys.executable, script, *command[-3:]] for command in in_processes(2)]
    with started(*commands) as running:
        assert [one.end(150) for one in running] == [0, 0], running[0].output
    assert "sum 2.0" in running[0].output


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("localhost:1", None, None), "--num_processes, --process_id is not given"),
        (("localhost:1", 2, 2), "--process_id=2 with --num_processes=2; expected 0 to 1"),
        (("localhost", 2, 0), "--coordinator=localhost; expected HOST:PORT"),
    ],
)
def test_half_of_what_is_needed_is_refused(given, message):
    with pytest.raises(UserError, match=message):
        distributed.initialize(*given)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, False),  # a task of an array
        ({"SLURM_NTASKS": "4"}, False),  # a shell of salloc
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "3"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, True),
    ],
)
def test_clusters_are_recognised(environment, expected, monkeypatch):
    for name in ("SLURM_NTASKS", "SLURM_PROCID", "OMPI_COMM_WORLD_SIZE", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if "TPU_WORKER_HOSTNAMES" in environment:  # as JAX finds on a TPU machine of GKE
        monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
        monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
        monkeypatch.setenv("MEGASCALE_SLICE_ID", "0")
        monkeypatch.setenv("MEGASCALE_NUM_SLICES", environment.get("MEGASCALE_NUM_SLICES", "1"))
    assert distributed._in_cluster() == expected


def test_one_process_needs_nobody():
    assert distributed.agree([3, 1]) == [3, 1]
    assert distributed.on_first(lambda: {"a": 1}) == {"a": 1}
    values = np.ones(2)
    assert distributed.total(values) is values

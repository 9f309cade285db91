"""Workdirs and features in a bucket: real calls of Cloud Storage, to a server on this machine."""

import os
import signal
import socket

import pytest
from helpers import write_features
from processes import FUSION, in_processes, main_command, started

from mmer_jax import mirror
from mmer_jax.errors import UserError
from mmer_jax.workdir import locked

server_module = pytest.importorskip("gcp_storage_emulator.server")
pytest.importorskip("gcsfs")


@pytest.fixture(scope="module")
def bucket():
    """gs://... and the environment that leads to it."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    server = server_module.create_server("localhost", port, in_memory=True, default_bucket="b")
    server.start()
    environment = {
        "STORAGE_EMULATOR_HOST": f"http://localhost:{port}",
        "FSSPEC_GCS_TOKEN": "anon",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # asks the real service what kind of bucket
    }
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    yield "gs://b"
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    server.stop()


def upload(folder, place):
    """As `gcloud storage cp --recursive` would."""
    from etils import epath

    for path in folder.iterdir():
        (epath.Path(place) / path.name).write_bytes(path.read_bytes())


def test_a_folder_of_this_machine_is_itself(tmp_path):
    assert mirror.folder(str(tmp_path)) == tmp_path
    (tmp_path / "x.txt").write_text("1")
    mirror.publish(tmp_path)
    mirror.renew(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


def test_what_one_machine_publishes_another_finds(bucket, tmp_path):
    place, here, there = f"{bucket}/w1", str(tmp_path / "here"), str(tmp_path / "there")
    mine = mirror.folder(place, copies=here)
    (mine / "checkpoints/running").mkdir(parents=True)
    (mine / "checkpoints/running/3.bin").write_bytes(b"three")
    (mine / "lock").write_text("mine")
    (mine / "config.json").write_text("{}")
    mirror.publish(mine)
    other = mirror.folder(place, copies=there)
    assert (other / "checkpoints/running/3.bin").read_bytes() == b"three"
    assert not (other / "lock").exists()
    (mine / "checkpoints/running/3.bin").unlink()
    (mine / "config.json").write_text('{"a": 1}')
    mirror.publish(mine)
    mirror.renew(other)
    assert not (other / "checkpoints/running/3.bin").exists()
    assert (other / "config.json").read_text() == '{"a": 1}'


def test_what_was_not_published_to_its_end_is_as_if_it_had_not_been(bucket, tmp_path, monkeypatch):
    """Killed between the files and the list of them: the bucket is what it was."""
    place = f"{bucket}/w2"
    mine = mirror.folder(place, copies=str(tmp_path / "here"))
    (mine / "1.bin").write_bytes(b"one")
    mirror.publish(mine)
    (mine / "2.bin").write_bytes(b"two")
    (mine / "1.bin").unlink()

    def killed(copy, place, name):
        send(copy, place, name)
        raise KeyboardInterrupt

    send = mirror._send
    with monkeypatch.context() as patched:
        patched.setattr(mirror, "_send", killed)
        with pytest.raises(KeyboardInterrupt):
            mirror.publish(mine)
    other = mirror.folder(place, copies=str(tmp_path / "there"))
    assert {p.name for p in other.iterdir()} - {mirror.OF} == {"1.bin"}
    mirror.publish(mine)
    mirror.renew(other)
    assert {p.name for p in other.iterdir()} - {mirror.OF} == {"2.bin"}


def test_runs_side_by_side_in_a_folder_are_published_with_it(bucket, tmp_path):
    """As those of --each are."""
    place, here, there = f"{bucket}/w8", str(tmp_path / "here"), str(tmp_path / "there")
    one = mirror.folder(place, copies=here) / "lr=0.1"
    one.mkdir()
    (one / "results.csv").write_text("1")
    mirror.publish(one)
    assert (mirror.folder(place, copies=there) / "lr=0.1/results.csv").read_text() == "1"


def test_what_a_run_has_not_yet_brought_back_is_left_alone(bucket, tmp_path):
    """A report, a prediction or a second start on the machine of a run that goes on."""
    place, here = f"{bucket}/w9", str(tmp_path / "here")
    mine = mirror.folder(place, copies=here)
    with locked(mine):
        (mine / "metrics.jsonl").write_text("unpublished")
        assert mirror.folder(place, copies=here) == mine
        assert (mine / "metrics.jsonl").read_text() == "unpublished"
    mirror.folder(place, copies=here)  # of a run that has ended, what the bucket lacks is void
    assert not (mine / "metrics.jsonl").exists()


def test_a_list_that_leads_outside_is_refused(bucket, tmp_path):
    from etils import epath

    place = f"{bucket}/w3"
    (epath.Path(place) / mirror.INDEX).write_text('{"../../evil": [1, "x"]}')
    (epath.Path(f"{bucket}/evil")).write_text("x")
    message = r"^gs://.*/mirror.json names '../../evil', which lies outside of it$"
    with pytest.raises(UserError, match=message) as caught:  # and not that it cannot be reached
        mirror.folder(place, copies=str(tmp_path))
    assert caught.value.exit_code == 2
    assert not (tmp_path / "evil").exists()


def test_a_bucket_that_is_not_there(bucket, tmp_path):
    with pytest.raises(UserError, match="gs://nobodys/w cannot be reached .*check the address"):
        mine = mirror.folder("gs://nobodys/w", copies=str(tmp_path))
        (mine / "x").write_text("1")
        mirror.publish(mine)


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_in_a_bucket_goes_on_on_another_machine(bucket, tmp_path, processes):
    """Each process has a home, and so a copy, of its own; the machine of the first run is gone."""
    write_features(tmp_path / "features", n=120)
    upload(tmp_path / "features", f"{bucket}/features")
    flags = (
        *FUSION,
        "--config.data.source=records",
        "--config.data.modalities=('text','audio','face')",
    )
    remote = (*flags, f"--config.data.root={bucket}/features", f"--workdir={bucket}/r{processes}")

    def commands(name):
        many = in_processes(processes, *remote) if processes > 1 else [main_command(*remote)]
        return [["env", f"HOME={tmp_path}/{name}{i}", *c] for i, c in enumerate(many)]

    with started(*commands("first")) as running:
        running[0].until("epoch 2/6")
        running[-1].process.send_signal(signal.SIGTERM)
        assert [one.end(120) for one in running] == [143] * processes
    with started(*commands("second")) as running:
        assert [one.end(240) for one in running] == [0] * processes, running[0].output
        assert "resuming after" in running[0].output
    local = (*flags, f"--config.data.root={tmp_path}/features", f"--workdir={tmp_path}/w")
    with started(main_command(*local)) as (alone,):
        assert alone.end() == 0
    found = mirror.folder(f"{bucket}/r{processes}", copies=str(tmp_path / "look"))
    if processes == 1:
        assert (found / "results.csv").read_bytes() == (tmp_path / "w/results.csv").read_bytes()
    assert (found / "report/report.md").exists()


def test_features_removed_from_a_bucket_are_not_read_from_the_copy(bucket, tmp_path):
    from etils import epath

    place = epath.Path(f"{bucket}/features")
    for name in ("utterances.csv", "audio.npz", "text.npz"):
        (place / name).write_text(name)
    found = mirror.features(str(place), ("audio", "text"), copies=str(tmp_path))
    assert (found / "text.npz").read_text() == "text.npz"
    (place / "text.npz").unlink()
    mirror.features(str(place), ("audio", "text"), copies=str(tmp_path))
    assert (found / "audio.npz").exists() and not (found / "text.npz").exists()

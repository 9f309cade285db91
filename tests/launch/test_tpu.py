"""launch/tpu.sh: the commands that it prints, and how a run goes on after a preemption."""

import json
import os
import shlex
import sys

import pytest
from launch_checkout import HOSTILE, calls_of, executable, launch, make_checkout

SETTINGS = ("--name=slice-1", "--zone=a zone", "--project=it's $(mine)")
SLICE = (*SETTINGS, "--type=v5litepod-64", "--version=v2-alpha-tpuv5-lite")
WHERE = ["--zone=a zone", "--project=it's $(mine)"]
TPUS = ["gcloud", "compute", "tpus"]
DESCRIBE = ["queued-resources", "describe", "slice-1", "--format=value(state.state)"]
DELETE = ["queued-resources", "delete", "slice-1", "--force", "--quiet"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return make_checkout(tmp_path_factory.mktemp("checkout"))


def dry_run(checkout, place, action, *arguments):
    """The commands of a dry run, by a shell and by shlex alike."""
    done = launch(checkout, "tpu.sh", action, "--dry_run", *arguments)
    assert done.returncode == 0, done.stderr
    calls = calls_of(done.stdout, place)
    assert shlex.split(done.stdout, comments=True) == [word for call in calls for word in call]
    return calls


def create(*more):
    return [
        *TPUS,
        *("queued-resources", "create", "slice-1", "--node-id=slice-1"),
        *("--accelerator-type=v5litepod-64", "--runtime-version=v2-alpha-tpuv5-lite"),
        *more,
        *WHERE,
    ]


def test_create_asks_for_the_slice_and_for_its_state(checkout, tmp_path):
    calls = dry_run(
        checkout, tmp_path / "calls", "create", *SLICE, "--spot", "--create_option=--tags=a b"
    )
    assert calls == [create("--spot", "--tags=a b"), [*TPUS, *DESCRIBE, *WHERE]]


def test_setup_copies_this_folder_to_every_host_and_installs(checkout, tmp_path):
    mkdir, tar, scp, install = dry_run(checkout, tmp_path / "calls", "setup", *SETTINGS)
    assert mkdir == ["mkdir", "-p", "build"]
    parts = ["LICENSE", "README.md", "configs", "launch", "mmer_jax", "pyproject.toml"]
    archive = "build/mmer_jax.tar.gz"
    assert tar == ["tar", "--exclude=__pycache__", "-czf", archive, *parts]
    assert scp == [*TPUS, "tpu-vm", "scp", archive, "slice-1:", "--worker=all", *WHERE]
    assert install[:6] == [*TPUS, "tpu-vm", "ssh", "slice-1"] and install[6] == "--worker=all"
    assert install[7].endswith("\nbash launch/install.sh tpu,gcs")


def test_setup_mounts_a_file_share_first(checkout, tmp_path):
    mount, *others = dry_run(
        checkout, tmp_path / "calls", "setup", *SETTINGS, "--nfs=10.0.0.2:/a b"
    )
    words = shlex.split(mount[7].removeprefix("--command="))
    assert words[-6:] == ["sudo", "mount", "-t", "nfs", "10.0.0.2:/a b", "/shared"]
    assert others == dry_run(checkout, tmp_path / "without", "setup", *SETTINGS)


def test_run_hands_the_flags_through_two_shells_and_tells_what_follows_a_preemption(
    checkout, tmp_path
):
    first, *again, last = dry_run(checkout, tmp_path / "calls", "run", *SLICE, "--", *HOSTILE)
    assert first == last and first[:7] == [*TPUS, "tpu-vm", "ssh", "slice-1", "--worker=all"]
    remote = shlex.split(first[7].removeprefix("--command="))
    lock = ["flock", "--no-fork", "--timeout", "600", "run.lock"]
    python = [".venv/bin/python", "-m", "mmer_jax.main"]
    assert remote == ["cd", "mmer_jax", "&&", "exec", *lock, *python, *HOSTILE]
    assert again[:3] == [[*TPUS, *DELETE, *WHERE], create(), [*TPUS, *DESCRIBE, *WHERE]]
    assert [call[0] for call in again[3:5]] == ["mkdir", "tar"]


def test_status_stop_and_delete_are_one_command_each(checkout, tmp_path):
    assert dry_run(checkout, tmp_path / "a", "status", *SETTINGS) == [[*TPUS, *DESCRIBE, *WHERE]]
    assert dry_run(checkout, tmp_path / "b", "delete", *SETTINGS) == [[*TPUS, *DELETE, *WHERE]]
    (stop,) = dry_run(checkout, tmp_path / "c", "stop", *SETTINGS)
    assert stop[7] == "--command=fuser --kill -TERM mmer_jax/run.lock"


def test_settings_may_come_from_the_environment(checkout, tmp_path):
    environment = {"TPU_NAME": "slice-1", "TPU_ZONE": "z z", "TPU_PROJECT": "p"}
    done = launch(checkout, "tpu.sh", "status", "--dry_run", "--zone=nearer", **environment)
    assert calls_of(done.stdout, tmp_path / "calls") == [
        [*TPUS, *DESCRIBE, "--zone=nearer", "--project=p"]
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "'' is no action: create, setup, run, stop, status or delete"),
        (("destroy",), "'destroy' is no action"),
        (
            ("create", "--zone=z"),
            "create needs --name= (or TPU_NAME) --project= (or TPU_PROJECT) "
            "--type= (or TPU_TYPE) --version= (or TPU_VERSION)",
        ),
        (("delete", *SETTINGS[1:]), "delete needs --name= (or TPU_NAME)"),
        (("run", *SLICE), "run needs the flags of python -m mmer_jax.main after --"),
        (
            ("run", *SLICE, "--config=x"),
            "unknown option '--config=x'; flags of the run stand after",
        ),
        (("status", *SETTINGS, "--name=--quiet"), "the name '--quiet' must have lower-case"),
        (("status", *SETTINGS, "--name=me@host"), "the name 'me@host' must have lower-case"),
    ],
)
def test_what_is_missing_or_wrong_is_said(checkout, arguments, message):
    done = launch(checkout, "tpu.sh", *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and message in done.stderr


# A gcloud that answers ssh and describe from files, line by line.
GCLOUD = """#!{python}
import json, pathlib, sys

here = pathlib.Path(__file__).parent
with open(here / "calls", "a") as file:
    file.write(json.dumps(sys.argv[3:]) + "\\n")


def answer(name):
    first, *rest = (here / name).read_text().split("\\n")
    (here / name).write_text("\\n".join(rest))
    return first


if "describe" in sys.argv:
    print(answer("states"))
elif "ssh" in sys.argv and "install.sh" not in sys.argv[-3]:
    sys.exit(int(answer("statuses")))
"""


def run_with(checkout, place, *, statuses, states):
    """(exit status, the actions of gcloud) where ssh and the slice's states go like this."""
    executable(place / "gcloud", GCLOUD.format(python=sys.executable))
    for name in ("LICENSE", "README.md", "configs", "pyproject.toml"):
        (checkout / name).touch()  # what setup packs
    (place / "statuses").write_text("\n".join(map(str, statuses)))
    (place / "states").write_text("\n".join(states))
    path = f"{place}:{os.environ['PATH']}"
    done = launch(
        checkout, "tpu.sh", "run", *SLICE, "--", "--workdir=w", PATH=path, TPU_POLL_SECONDS="0"
    )
    calls = [json.loads(line)[:2] for line in (place / "calls").read_text().splitlines()]
    assert (place / "states").read_text() == "" and (place / "statuses").read_text() == ""
    return done.returncode, [action for _, action in calls]


@pytest.mark.parametrize("status", [0, 2])
def test_a_run_that_is_done_or_mistaken_ends(checkout, tmp_path, status):
    assert run_with(checkout, tmp_path, statuses=[status], states=[]) == (status, ["ssh"])


def test_a_preempted_slice_is_created_anew_and_the_run_goes_on(checkout, tmp_path):
    states = ["SUSPENDING", "SUSPENDED", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
    status, actions = run_with(checkout, tmp_path, statuses=[143, 0], states=states)
    anew = ["delete", "create", *["describe"] * 3, "scp", "ssh"]
    assert (status, actions) == (0, ["ssh", "describe", "describe", *anew, "ssh"])


def test_a_lost_connection_to_a_live_slice_is_taken_up_again(checkout, tmp_path):
    found = run_with(checkout, tmp_path, statuses=[255, 0], states=["ACTIVE"])
    assert found == (0, ["ssh", "describe", "ssh"])


def test_what_may_have_passed_is_tried_again(checkout, tmp_path):
    found = run_with(checkout, tmp_path, statuses=[75, 0], states=["ACTIVE"])
    assert found == (0, ["ssh", "describe", "ssh"])


@pytest.mark.parametrize("status", [1, 143])
def test_a_run_that_ends_on_a_live_slice_is_not_repeated(checkout, tmp_path, status):
    """143: somebody stopped it."""
    found = run_with(checkout, tmp_path, statuses=[status], states=["ACTIVE"])
    assert found == (status, ["ssh", "describe"])


def test_a_slice_that_cannot_be_had_is_said(checkout, tmp_path):
    states = ["SUSPENDED", "WAITING_FOR_RESOURCES", "FAILED"]
    status, actions = run_with(checkout, tmp_path, statuses=[255], states=states)
    assert (status, actions[-2:]) == (2, ["describe", "describe"])

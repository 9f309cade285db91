"""launch/gke.sh: manifests as YAML reads them, and the commands that take them there."""

import shlex

import pytest
import yaml
from launch_checkout import HOSTILE, launch, make_checkout

TPU = (
    "--selector=cloud.google.com/gke-tpu-accelerator=tpu-v5-lite-podslice",
    "--selector=cloud.google.com/gke-tpu-topology=8x8",
    "--resource=google.com/tpu=4",
)
IMAGE = 'registry/a: "b" #{name}'
INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return make_checkout(tmp_path_factory.mktemp("checkout"))


def applied(checkout, action, *arguments):
    """(the kubectl command, the manifest) of a dry run."""
    done = launch(checkout, "gke.sh", action, "--dry_run", *arguments)
    assert done.returncode == 0, done.stderr
    first, _, rest = done.stdout.partition(" <<'END_OF_MANIFEST'\n")
    text, end, after = rest.partition("\nEND_OF_MANIFEST\n")
    assert end and after == "", "the manifest ends the here-document itself"
    return shlex.split(first), yaml.safe_load(text)


def expanded(arguments):
    """As Kubernetes hands them on: $$ is $; our flags must hold nothing else that it replaces."""
    assert not any("$(" in argument.replace("$$", "") for argument in arguments)
    return [argument.replace("$$", "$") for argument in arguments]


def test_a_run_is_a_job_set_of_as_many_pods_as_hosts(checkout):
    command, jobset = applied(
        checkout,
        "run",
        *("--name=ifmmin", f"--image={IMAGE}", "--count=16", "--context=a b", *TPU),
        *("--service_account=yes", "--claim=1e3", "--", *HOSTILE),
    )
    assert command == ["kubectl", "apply", "--context=a b", "-f", "-"]
    assert (jobset["kind"], jobset["metadata"]["name"]) == ("JobSet", "ifmmin")
    (hosts,) = jobset["spec"]["replicatedJobs"]
    job = hosts["template"]["spec"]
    assert (hosts["replicas"], job["completions"], job["parallelism"]) == (1, 16, 16)
    assert job["completionMode"] == "Indexed" and job["backoffLimit"] == 0
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "8x8",
    }
    assert pod["serviceAccountName"] == "yes" and pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    assert container["image"] == IMAGE and container["resources"]["limits"] == {
        "google.com/tpu": "4"
    }
    assert container["command"] == ["python", "-m", "mmer_jax.main"]
    coordinator = f"--coordinator=ifmmin-{hosts['name']}-0-0.ifmmin:8476"
    first = [coordinator, "--num_processes=16", "--process_id=$(PROCESS)"]
    assert container["args"][:3] == first and expanded(container["args"][3:]) == list(HOSTILE)
    assert container["env"] == [
        {"name": "PROCESS", "valueFrom": {"fieldRef": {"fieldPath": INDEX}}}
    ]
    (volume,), (mount,) = pod["volumes"], container["volumeMounts"]
    assert volume["persistentVolumeClaim"] == {"claimName": "1e3"}
    assert mount == {"name": volume["name"], "mountPath": "/shared"}


def test_a_mistake_ends_a_run_and_a_preemption_does_not(checkout):
    _, jobset = applied(checkout, "run", "--name=a", "--image=i", "--count=2", "--", "--x")
    failures = jobset["spec"]["failurePolicy"]
    assert failures["maxRestarts"] == 1000
    (rule,) = failures["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    (mistake,) = job["podFailurePolicy"]["rules"]
    assert mistake["action"] == "FailJob" and mistake["onExitCodes"]["values"] == [2]
    pod = job["template"]["spec"]
    assert mistake["onExitCodes"]["containerName"] == pod["containers"][0]["name"]
    assert (pod["nodeSelector"], pod["volumes"]) == ({}, [])


def test_a_sweep_is_an_indexed_job_of_workers(checkout):
    command, job = applied(
        checkout, "sweep", "--name=sweep", "--image=i", "--count=8", "--", *HOSTILE
    )
    assert command == ["kubectl", "apply", "-f", "-"]
    assert (job["kind"], job["spec"]["completionMode"]) == ("Job", "Indexed")
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (8, 8)
    mistake, preempted = job["spec"]["podFailurePolicy"]["rules"]
    assert mistake["action"] == "FailJob" and mistake["onExitCodes"]["values"] == [2]
    assert preempted["action"] == "Ignore"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    *flags, worker = container["args"]
    assert expanded(flags) == list(HOSTILE) and worker == "--worker=$(WORKER)"
    assert container["env"] == [{"name": "WORKER", "valueFrom": {"fieldRef": {"fieldPath": INDEX}}}]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("delete", "--name=a"), ["delete", "jobset", "a"]),
        (("delete", "--name=a", "--sweep"), ["delete", "job", "a"]),
        (
            ("status", "--name=a", "--namespace=n n"),
            ["get", "--namespace=n n", "jobs,pods", "-l", "app.kubernetes.io/instance=a"],
        ),
    ],
)
def test_status_and_delete_are_one_command_each(checkout, arguments, words):
    done = launch(checkout, "gke.sh", *arguments, "--dry_run")
    assert shlex.split(done.stdout) == ["kubectl", *words]


def test_pods_bear_the_label_that_status_asks_for(checkout):
    _, jobset = applied(checkout, "run", "--name=a", "--image=i", "--count=2", "--", "--x")
    _, sweep = applied(checkout, "sweep", "--name=a", "--image=i", "--count=2", "--", "--x")
    job = jobset["spec"]["replicatedJobs"][0]["template"]
    for labelled in (jobset, job, job["spec"]["template"], sweep, sweep["spec"]["template"]):
        assert labelled["metadata"]["labels"]["app.kubernetes.io/instance"] == "a"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "'' is no action: run, sweep, status or delete"),
        (("run",), "run needs --name= (or GKE_NAME)"),
        (("sweep", "--name=a"), "sweep needs --image= (or GKE_IMAGE)"),
        (("run", "--name=a", "--image=i"), "run needs --count=N, a number from 1"),
        (("run", "--name=a", "--image=i", "--count=0"), "run needs --count=N, a number from 1"),
        (("run", "--name=a", "--image=i", "--count=2"), "run needs the flags of python -m"),
        (("run", "--name=A b"), "the name 'A b' must have lower-case letters"),
        (("run", "--selector=x"), "unknown option '--selector=x'"),
        (("delete", "--sweep"), "delete needs --name="),
    ],
)
def test_what_is_missing_or_wrong_is_said(checkout, arguments, message):
    done = launch(checkout, "gke.sh", *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and message in done.stderr

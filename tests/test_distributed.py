"""What a process finds out about its run without the others."""

import errno

import pytest

from mmer_jax import distributed
from mmer_jax.errors import Transient, UserError, exit_code_of


@pytest.mark.parametrize(
    ("tasks", "whole"),
    [("1(x4)", True), ("1", True), ("8(x2)", False), ("1,2", False), ("", False)],
)
def test_the_only_task_of_a_machine_drives_all_its_devices(monkeypatch, tasks, whole):
    """JAX would give it the first GPU alone."""
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", tasks)
    assert distributed._has_its_machine() is whole


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("x"), 2),
        (Transient("x"), 75),
        (OSError(errno.ESTALE, "Stale file handle"), 75),
        (OSError(errno.EIO, "Input/output error"), 75),
        (OSError(errno.EACCES, "Permission denied"), 2),
        (OSError("without a number"), 2),
    ],
)
def test_what_may_pass_has_a_status_of_its_own(error, code):
    assert exit_code_of(error) == code

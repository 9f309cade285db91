"""The released networks' values, through the command a user runs."""

import os
import subprocess
import sys

import numpy as np
import pytest

from mmer_jax.parity import __main__ as parity

FILES = (
    "cmd",
    "encoders",
    "utt_fusion",
    "utt_shared",
    "mmin",
    "ifmmin",
    "nmer_noise",
    "nmer_vae_encoder",
    "ramer_retrieval",
    "ei2",
    "hardy_student_a",
    "hardy_teacher_at",
    "hardy_retrieval",
)
# Of HARDY-MER's arrays those that are [turns, dialogues, ...].
TURNS_FIRST = ("features_seq_batch_dim", "full_features", "available_seq_batch_3", "rec_feats")


@pytest.mark.parametrize("name", FILES)
def test_reference_values_hold(reference_dir, name, capsys):
    assert parity.main([str(reference_dir / f"{name}.npz")]) == 0
    printed = capsys.readouterr().out
    assert "FAIL" not in printed and f"{name}.npz" in printed


@pytest.mark.slow
def test_losses_agree_to_1e_7_in_float64(reference_dir):
    """Of their value: the reference values are float32 numbers."""
    files = [str(reference_dir / f"{name}.npz") for name in FILES]
    command = [sys.executable, "-m", "mmer_jax.parity", *files]
    environment = os.environ | {"JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    losses = [line.split() for line in done.stdout.splitlines() if " loss" in line]
    assert len(losses) > 20
    assert all(float(line[-1]) < 5e-7 for line in losses)  # tolerances; of float32 they are 1e-5


def test_a_wrong_value_fails(reference_dir, tmp_path, capsys):
    with np.load(reference_dir / "utt_fusion.npz") as archive:
        arrays = dict(archive)
    arrays["output/logits"] = arrays["output/logits"] + 2e-5
    np.savez(tmp_path / "wrong.npz", **arrays)
    assert parity.main([str(tmp_path / "wrong.npz")]) == 1
    printed = capsys.readouterr()
    assert "FAIL wrong.npz" in printed.out and "1 quantities differ" in printed.err


def test_files_of_other_sizes_hold_as_well(reference_dir, tmp_path):
    """One dialogue, twice; some of the queries: the reference follows by hand."""
    with np.load(reference_dir / "hardy_student_a.npz") as archive:
        student = dict(archive)
    for name, x in student.items():
        if name.startswith(("input/", "output", "loss/")) and x.ndim:
            dialogues = 1 if name.split("/")[1] in TURNS_FIRST else 0
            student[name] = x.take([0, 0], axis=dialogues)
    assert student["input/utterance_mask_batch_seq"].all()  # the whole dialogue
    error = student["loss/reconstruction_per_utterance"]
    student["loss/reconstruction"] = 3 * error.mean()
    with np.load(reference_dir / "hardy_retrieval.npz") as archive:
        retrieval = dict(archive)
    for name, x in retrieval.items():
        if name.startswith(("input/query", "input/hard", "output")):
            retrieval[name] = x[2:9]
    for name, arrays in (("student", student), ("retrieval", retrieval)):
        np.savez(tmp_path / f"{name}.npz", **arrays)
        assert parity.main([str(tmp_path / f"{name}.npz")]) == 0


def test_other_files_are_refused(tmp_path, capsys):
    np.savez(tmp_path / "other.npz", x=1)
    assert parity.main([str(tmp_path / "other.npz")]) == 2
    assert "not a reference file" in capsys.readouterr().err

"""The released networks' values, through the command a user runs."""

import numpy as np
import pytest

from mmer_jax.parity import __main__ as parity

FILES = ("cmd", "encoders", "utt_fusion", "utt_shared", "ifmmin")


@pytest.mark.parametrize("name", FILES)
def test_reference_values_hold(reference_dir, name, capsys):
    assert parity.main([str(reference_dir / f"{name}.npz")]) == 0
    printed = capsys.readouterr().out
    assert "FAIL" not in printed and f"{name}.npz" in printed


def test_a_wrong_value_fails(reference_dir, tmp_path, capsys):
    with np.load(reference_dir / "utt_fusion.npz") as archive:
        arrays = dict(archive)
    arrays["output/logits"] = arrays["output/logits"] + 2e-5
    np.savez(tmp_path / "wrong.npz", **arrays)
    assert parity.main([str(tmp_path / "wrong.npz")]) == 1
    printed = capsys.readouterr()
    assert "FAIL wrong.npz" in printed.out and "1 quantities differ" in printed.err


def test_other_files_are_refused(tmp_path, capsys):
    np.savez(tmp_path / "other.npz", x=1)
    assert parity.main([str(tmp_path / "other.npz")]) == 2
    assert "not a reference file" in capsys.readouterr().err

"""The shipped recogniser on the corpus that espeak-ng makes: what the README says of it."""

import csv
import os
import subprocess
import sys

import pytest
from speech_corpora import ROOT


@pytest.mark.long
def test_the_recogniser_reads_l1_and_tells_l2_from_it(tmp_path):
    """In a process of its own: this one has eight devices and no optimisation."""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    command = [sys.executable, "-m", "mmer_jax.speech.train", f"--workdir={tmp_path / 'work'}"]
    command += [f"--config={ROOT / 'configs' / 'l1_recogniser.py'}"]
    subprocess.run(
        [*command, f"--config.data.cache={tmp_path / 'cache'}"],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    with (tmp_path / "work" / "scores.csv").open(newline="", encoding="utf-8") as file:
        scores = {(r["split"], r["metric"]): float(r["value"]) for r in csv.DictReader(file)}
    assert scores["test", "per_greedy"] < 0.05
    assert scores["test", "per_beam"] < 0.05
    assert scores["test", "auc_l1_l2"] >= 0.95
    assert scores["test", "boundary_ms"] < 20

"""Two real processes train a recogniser together: one batch, the same network, one who writes."""

import jax
import numpy as np
import pytest
from processes import run

from mmer_jax.checkpoint import load_final


@pytest.mark.long
def test_two_processes_train_the_recogniser_of_one(spoken, tmp_path):
    flags = (
        "--config=configs/l1_recogniser.py",
        f"--config.data.corpus={spoken}",
        f"--config.data.cache={tmp_path}/cache",
        *(f"--config.model.{name}=8" for name in ("channels", "hidden")),
        "--config.model.layers=1",
        *(f"--config.stages.recogniser.{name}_epochs=1" for name in ("constant", "decay")),
        "--config.stages.recogniser.batch_size=8",
        "--config.checkpoint.every_seconds=0",
    )
    found = {}
    for count in (1, 2):
        workdir = tmp_path / f"{count}"
        said = run(*flags, f"--workdir={workdir}", processes=count, module="mmer_jax.speech.train")
        assert said.count("recogniser epoch 2/2") == 1
        assert len((workdir / "metrics.jsonl").read_text().splitlines()) == 2
        assert (workdir / "scores.csv").exists()
        found[count] = jax.tree.leaves(load_final(workdir, "recogniser"))
    assert "on 2 cpu device(s)" in said
    for alone, together in zip(found[1], found[2], strict=True):
        np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-4)

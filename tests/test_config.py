"""Configurations: into config.json and back."""

import json
import runpy

import pytest
from places import ROOT

from mmer_jax.config import base, flat, from_flat
from mmer_jax.speech import config as speech_config
from mmer_jax.speech.task import TASKS


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "configs").glob("*.py")))
def test_a_configuration_survives_json(name):
    config = runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["get_config"]()
    defaults = speech_config.base if config.method in TASKS else base
    back = from_flat(json.loads(json.dumps(flat(config))), defaults)
    assert back == config and back.is_locked


def test_keys_that_an_older_run_lacks_have_their_defaults():
    config = from_flat({"model.embedding": 7, "stages.x.b1": 0.5, "trials.folds": [1, 2]})
    assert (config.model.embedding, config.model.pooling) == (7, "maxpool")
    assert config.stages.x.b1 == 0.5 and config.trials.folds == (1, 2)

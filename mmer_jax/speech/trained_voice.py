"""The Ai-TTS that a workdir holds."""

import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
from rich.console import Console

from mmer_jax import config as config_lib
from mmer_jax import mirror
from mmer_jax.checkpoint import finished_trials, load_final
from mmer_jax.errors import UserError
from mmer_jax.speech import config as speech_config
from mmer_jax.speech import intensity
from mmer_jax.speech.aitts import AiTTS, Judge
from mmer_jax.speech.aitts_task import STAGE, open_annotated
from mmer_jax.speech.dataset import SpeechData
from mmer_jax.speech.recogniser import load_recogniser
from mmer_jax.speech.voice import Synthesiser


class Run(NamedTuple):
    """config.json of a workdir."""

    config: ConfigDict
    facts: dict


def read_run(workdir: Path) -> Run:
    """What a run of Ai-TTS was.

    Raises:
      UserError: `workdir` is not one.
    """
    path = workdir / "config.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        config = config_lib.from_flat(stored["config"], speech_config.base)
        facts = dict(stored["facts"])
        if config.method != STAGE:
            raise ValueError(f"its method is '{config.method}'")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{workdir} is no workdir of Ai-TTS ({error}); train one with python -m "
            f"mmer_jax.speech.train --config=configs/aitts.py --workdir={workdir}"
        ) from None
    return Run(config, facts)


def load_synthesiser(workdir: str | Path, seed: int = 0) -> Synthesiser:
    """The trained model of a workdir.

    Raises:
      UserError: `workdir` is none of Ai-TTS, or has not been trained to the end with this seed.
    """
    workdir = mirror.folder(str(workdir))
    config, facts = read_run(workdir)
    trial = finished_trials(workdir).get(f"seed{seed}")
    if trial is None:
        raise UserError(f"{workdir} has no finished Ai-TTS of seed {seed}; train it to the end")
    stored = load_final(workdir, trial.group)[STAGE]
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf[trial.position]), stored)
    return make_synthesiser(config, facts, params)


def make_synthesiser(config, facts: dict, params) -> Synthesiser:
    """A model of one trial with the names of its voices, which the task's facts hold."""
    model = AiTTS(config.model, len(facts["speakers"]), len(facts["accents"]))
    return Synthesiser(
        model, params, facts["speakers"], facts["accents"], facts["voices"], facts["longest"]
    )


def load_judge(workdir: Path, recogniser: str = "") -> Judge:
    """What measured the intensities that a workdir was trained on.

    Args:
      workdir: of Ai-TTS.
      recogniser: its workdir, if it has been moved since.

    Raises:
      UserError: there is no recogniser there, or another one.
    """
    config, facts = read_run(workdir)
    place = recogniser or config.data.recogniser
    found = load_recogniser(place)
    if found.fingerprint != facts["recogniser"]:
        raise UserError(
            f"the recogniser in {place} is not the one that {workdir} was trained with; give that "
            "one's workdir by --recogniser"
        )
    return Judge(found, intensity.load(intensity.place(workdir)))


def open_corpus(workdir: Path, judge: Judge, console: Console) -> SpeechData:
    """The corpus that a workdir was trained on.

    Raises:
      UserError: it has changed since.
    """
    config, facts = read_run(workdir)
    data, _ = open_annotated(config, judge.recogniser, console)
    if data.fingerprint != facts["corpus"]:
        raise UserError(f"the corpus is no longer the one that {workdir} was trained on")
    return data

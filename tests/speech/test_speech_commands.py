"""From a corpus to speech and figures: the commands, on networks of a few numbers."""

import csv

import pytest
from aitts_setting import model_settings
from rich.console import Console
from speech_corpora import tiny_config

from configs.aitts import get_config
from configs.aitts_baseline import get_config as get_baseline
from mmer_jax.speech import control, synthesize, training
from mmer_jax.speech.audio import read_audio


@pytest.fixture(scope="module")
def trained(spoken, one_width, tmp_path_factory):
    """The folder of workdirs l1, aitts and baseline."""
    place = tmp_path_factory.mktemp("commands")
    configs = {"l1": tiny_config(spoken, place / "cache")}
    for name, base in (("aitts", get_config), ("baseline", get_baseline)):
        configs[name] = config = base()
        with config.unlocked():
            config.data.corpus, config.data.cache = str(spoken), str(place / "cache")
            config.data.recogniser = str(place / "l1")
            config.model.update(model_settings(control=config.model.control))
            config.stages.aitts.update(constant_epochs=1, decay_epochs=1, consistency_from=1)
            config.mesh.devices = 1
    for name, config in configs.items():
        training.train(config, place / name, Console(quiet=True))
    return place


@pytest.mark.slow
def test_a_sentence_is_spoken_with_an_intensity_for_each_word(trained, tmp_path, capsys):
    out = tmp_path / "donkey.wav"
    flags = ["--text", "The donkey waited", "--accent", "es", "--intensity", "0.2,0.9,0.5"]
    assert synthesize.main(["--workdir", str(trained / "aitts"), *flags, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "speaker es0, accent es, intensity" in said and "real-time factor" in said
    assert "donkey" in said and "0.90" in said
    assert len(read_audio(out)) > 1000


@pytest.mark.slow
def test_control_is_measured_beside_the_baseline(trained, capsys):
    flags = ["--workdir", str(trained / "aitts"), "--compare", str(trained / "baseline")]
    assert control.main([*flags, "--sentences", "1"]) == 0
    with (trained / "aitts/control/control.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    systems = ("Ai-TTS", "baseline: weight of the speaker-adversarial loss")
    assert [line["system"] for line in lines] == [name for name in systems for _ in range(11)]
    assert [float(line["requested"]) for line in lines[:11]] == [i / 10 for i in range(11)]
    assert (trained / "aitts/control/control.png").exists()
    assert control.main([*flags, "--recogniser", str(trained / "baseline")]) == 2
    assert "is no workdir of a recogniser" in capsys.readouterr().err

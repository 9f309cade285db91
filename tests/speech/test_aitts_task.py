"""Training of Ai-TTS: exact resumption, any number of devices, and what is written at the end."""

import io
import json

import jax
import numpy as np
import pytest
from aitts_setting import make_batch, make_data, make_judge, model_settings
from rich.console import Console

from configs.aitts import get_config
from configs.aitts_baseline import get_config as get_baseline
from mmer_jax.checkpoint import load_final
from mmer_jax.errors import UserError
from mmer_jax.interrupt import Interrupted
from mmer_jax.speech.aitts_task import AiTTSTask, check_values, check_voices, seen, voices
from mmer_jax.speech.training import Training


def tiny_config(base=get_config, **stage):
    """The shipped configuration, shrunk."""
    config = base()
    with config.unlocked():
        config.model.update(model_settings(control=config.model.control))
        config.data.recogniser = "somewhere"
        config.checkpoint.every_seconds = 0.0
        config.mesh.devices = 1
        config.stages.aitts.update(
            {"batch_size": 4, "constant_epochs": 1, "decay_epochs": 1, "consistency_from": 1}
        )
        config.stages.aitts.update(stage)
    return config


def train(workdir, config, epochs=None):
    """Train to the end, or stop after `epochs` as a signal would."""
    workdir.mkdir(exist_ok=True)
    task = AiTTSTask(config, make_data(), make_judge())
    trials = [f"seed{seed}" for seed in range(config.trials.seeds)]
    training = Training(config, task, workdir, trials)
    if epochs is not None:
        after_epoch = training._saving.after_epoch

        def stop(done, state, request):
            if done == epochs:
                request.signal = 15
            after_epoch(done, state, request)

        training._saving.after_epoch = stop
    training.run(Console(file=io.StringIO()))
    return task


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("aitts")
    task = train(workdir, tiny_config())
    return workdir, task


def leaves(workdir):
    return jax.tree.leaves(load_final(workdir, "aitts"))


@pytest.mark.slow
def test_resumed_training_ends_where_uninterrupted_training_does(trained, tmp_path):
    with pytest.raises(Interrupted):
        train(tmp_path, tiny_config(), epochs=1)
    train(tmp_path, tiny_config())
    for ours, theirs in zip(leaves(tmp_path), leaves(trained[0]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_eight_devices_give_what_one_gives(trained, tmp_path):
    config = tiny_config()
    config.mesh.devices, config.trials.seeds = 8, 2
    train(tmp_path, config)
    for ours, theirs in zip(leaves(tmp_path), leaves(trained[0]), strict=True):
        np.testing.assert_allclose(ours[:1], theirs, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("term", ["consistency", "movement"])
def test_made_up_requests_are_logged_from_their_epoch_on(trained, term):
    records = [json.loads(x) for x in (trained[0] / "metrics.jsonl").read_text().splitlines()]
    found = {record["epoch"]: record[term] for record in records}
    assert found[1] == 0.0 and found[2] > 0.0
    assert all(record[f"validation/{term}"] > 0 for record in records)


def test_made_up_requests_have_the_dropout_of_training():
    """Without it the network could tell them from recordings, and speak otherwise to its judge."""
    found = []
    for rate in (0.0, 0.5):
        task = AiTTSTask(tiny_config(dropout=rate), make_data(), make_judge())
        params = jax.jit(task.init)(jax.random.key(0))
        _, terms = jax.jit(task.loss)(params, make_batch(), jax.random.key(1), 1)
        found.append(float(terms["consistency"]))
    assert abs(found[0] - found[1]) > 1e-3


@pytest.mark.slow
def test_the_end_is_written(trained):
    workdir, task = trained
    params = jax.tree.map(lambda leaf: np.asarray(leaf), load_final(workdir, "aitts")["aitts"])
    task.finish(workdir, params, Console(file=io.StringIO()))
    header, *rows = (workdir / "prosody.csv").read_text().splitlines()
    assert header == "quantity,unit,speech,system,rmse,mae,phones"
    assert len(rows) == 3 * 4  # quantities, systems; the only test utterance is L1
    assert len((workdir / "distortion.csv").read_text().splitlines()) == 2
    assert (workdir / "samples.html").read_text().count("<audio") == 1 + 2 * 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "ablation", [{"control": "utterance"}, {"control": "none"}, {"consistency_weight": 0.0}]
)
def test_ablations_train_and_report(tmp_path, ablation):
    config = tiny_config()
    with config.unlocked():
        for name, value in ablation.items():
            (config.model if name == "control" else config.stages.aitts)[name] = value
    task = train(tmp_path, config)
    records = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert ("consistency" in records[-1]) is (ablation == {"control": "utterance"})
    params = jax.tree.map(np.asarray, load_final(tmp_path, "aitts")["aitts"])
    task.finish(tmp_path, params, Console(file=io.StringIO()))
    sounds = (tmp_path / "samples.html").read_text().count("<audio")
    assert sounds == 1 + 2 * (1 if task.model.control == "none" else 5)


def test_the_baseline_trains_an_adversary_and_no_intensity(tmp_path):
    task = train(tmp_path, tiny_config(get_baseline))
    record = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert record["adversary"] > 0
    assert not {"intensity", "consistency", "movement"} & set(record)
    assert not task.is_consistent


def test_only_training_speakers_are_known():
    data = make_data()
    assert voices(data) == {"cmn0": "cmn", "de0": "de", "en0": ""}
    assert seen(data, "test").tolist() == [1]
    data.columns["accent"] = data.columns["accent"].astype("U3")
    data.columns["accent"][1] = "cmn"
    with pytest.raises(UserError, match="no utterance of an L1 speaker of training in split"):
        AiTTSTask(tiny_config(), data, make_judge())  # and not after all the training
    data = make_data()
    data.columns["speaker"][1] = "stranger"
    with pytest.raises(UserError, match="no utterance of a training speaker in split 'test_seen'"):
        seen(data, "test")


@pytest.mark.parametrize(
    ("accents", "message"),
    [
        ({}, "has no accented speech; name the accent of some utterances"),
        ({0: "fr"}, "no utterance in split 'train' has the accent 'fr'"),
        ({2: "cmn", 5: "de", 8: "cmn"}, "speaker 'de0' has the accents cmn, de;"),
    ],
)
def test_corpora_whose_accents_cannot_be_learnt_are_refused(accents, message):
    data = make_data()
    if accents:
        data.columns["accent"] = data.columns["accent"].astype("U3")
        for row, accent in accents.items():
            data.columns["accent"][row] = accent
        data.accents = tuple(sorted(set(data.columns["accent"])))
    else:
        data.columns["accent"][:], data.accents = "", ("",)
    with pytest.raises(UserError, match=message):
        check_voices(data)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.control", "words", "choose one of: phone, utterance, none, adversarial"),
        ("model.heads", 3, "even multiple of model.heads, 3"),
        ("model.kernel", 4, "expected an odd number"),
        ("model.decoder_blocks", 0, "at least 1"),
        ("stages.aitts.consistency_rows", 0.0, "share of the batch"),
        ("stages.aitts.weight_decay", 1e-5, "it must be 0, or the mels' means"),
        ("data.recogniser", "", "train one with configs/l1_recogniser.py"),
    ],
)
def test_values_that_build_no_network_are_refused(key, value, message):
    config = tiny_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message):
        check_values(config)

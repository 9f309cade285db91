"""The exported file: runs without the package, says what the predictor says."""

import dataclasses
import io
import json
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest
from untrained import SPEC, untrained, utterances

from configs import ei2, ifmmin, nmer
from mmer_jax import export
from mmer_jax.data.corpus import Task
from mmer_jax.data.speakers import number_speakers
from mmer_jax.data.units import Grouping
from mmer_jax.errors import UserError

# What README shows, after two lines that stand for a machine without the package.
SCRIPT = """
import sys
sys.modules["mmer_jax"] = None  # importing it raises ImportError
import io, json, zipfile
import jax, jax.export, numpy as np

with zipfile.ZipFile(sys.argv[1]) as file:
    about = json.loads(file.read("model.json"))
    weights = jax.device_put(dict(np.load(io.BytesIO(file.read("weights.npz")))))
    program = jax.jit(jax.export.deserialize(bytearray(file.read("program.bin"))).call)

given = np.load(sys.argv[2])
features = {m["name"]: given[m["name"]] for m in about["modalities"]}
lengths = {m["name"]: given["lengths:" + m["name"]] for m in about["modalities"] if m["sequence"]}
outputs, members = program(weights, features, lengths, given["present"])
np.savez(sys.argv[3], outputs=outputs, members=members)
print([about["classes"][i] for i in np.nan_to_num(outputs).argmax(axis=1)])
"""


def padded(features, steps):
    """(features, lengths) as a program takes them: sequences filled up to `steps` with rubbish."""
    arrays, lengths = {}, {}
    for m in SPEC.modalities:
        if not m.is_sequence:
            arrays[m.name] = np.float32(features[m.name])
            continue
        lengths[m.name] = np.array([len(x) for x in features[m.name]], np.int32)
        filling = ((0, 0), (0, 0))
        arrays[m.name] = np.stack(
            [
                np.pad(np.float32(x), ((0, steps - len(x)), filling[1]), constant_values=np.nan)
                for x in features[m.name]
            ]
        )
    return arrays, lengths


def test_runs_without_the_package(tmp_path):
    model = untrained(ifmmin.get_config(), count=2)
    export.write(model, tmp_path / "model.mmer")
    features = utterances(5)
    arrays, lengths = padded(features, steps=20)
    present = np.random.default_rng(1).random((5, 3)) < 0.6
    present[0], present[1] = True, False
    np.savez(
        tmp_path / "given.npz",
        **arrays,
        **{f"lengths:{name}": value for name, value in lengths.items()},
        present=present,
    )
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "model.mmer", "given.npz", "found.npz"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PATH": "", "JAX_PLATFORMS": "cpu", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    with_holes = {
        name: [x if there else None for x, there in zip(features[name], present[:, i], strict=True)]
        for i, name in enumerate(SPEC.names)
    }
    expected = model.predict(with_holes, members=True)
    with np.load(tmp_path / "found.npz") as found:
        np.testing.assert_allclose(found["outputs"], expected.outputs, rtol=0, atol=3e-6)
        np.testing.assert_allclose(found["members"], expected.members, rtol=0, atol=3e-6)
    assert np.isnan(expected.outputs[1]).all() and expected.labels[0] in done.stdout


def test_the_file_says_what_it_takes_and_gives(tmp_path):
    model = untrained()
    export.write(model, tmp_path / "model.mmer")
    with zipfile.ZipFile(tmp_path / "model.mmer") as file:
        about = json.loads(file.read("model.json"))
        exported = jax.export.deserialize(bytearray(file.read("program.bin")))
    shapes = [(m["name"], m["shape"], m["sequence"]) for m in about["modalities"]]
    assert shapes == [
        ("text", ["b", "t0", "4"], True),
        ("audio", ["b", "3"], False),
        ("sound", ["b", "t2", "5"], True),
    ]
    assert about["classes"] == ["glad", "mad", "sad"] and about["outputs"] == "probabilities"
    assert about["members"] == [{"fold": f, "seed": 0} for f in range(3)]
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert [str(out) for out in exported.out_avals] == ["float32[b,3]", "float32[3,b,3]"]


def test_networks_with_attention_and_running_statistics_export(tmp_path):
    model = untrained(nmer.get_config(), count=1, model__vae__heads=2)
    export.write(model, tmp_path / "model.mmer")
    with zipfile.ZipFile(tmp_path / "model.mmer") as file:
        assert "params/statistics/norm0/mean" in np.load(io.BytesIO(file.read("weights.npz")))


@pytest.mark.slow
def test_turns_of_a_dialogue_are_read_after_each_other(tmp_path):
    """A file of EI² on the turns of one dialogue says what the predictor says of them."""
    tasks = (*SPEC.tasks, Task("intent", ("ask", "tell")))
    spec = dataclasses.replace(SPEC, tasks=tasks, n_speakers=2)
    changes = {"model__history": 3, "stages__ei2__init_from_pretrained": False}
    model = untrained(ei2.get_config(), spec=spec, count=2, **changes)
    export.write(model, tmp_path / "model.mmer")
    with zipfile.ZipFile(tmp_path / "model.mmer") as file:
        about = json.loads(file.read("model.json"))
        weights = dict(np.load(io.BytesIO(file.read("weights.npz"))))
        program = jax.jit(jax.export.deserialize(bytearray(file.read("program.bin"))).call)
    assert (about["unit"], about["history"], about["speakers"]) == ("history", 3, 2)
    assert about["tasks"]["intent"] == ["ask", "tell"]
    for count in (1, 6):
        features = utterances(count, seed=count)
        arrays, lengths = padded(features, steps=20)
        present = np.ones((count, 3), bool)
        present[count // 2, 1] = False
        voices = np.array([7, 7, -2, 7, -2, -2], np.int32)[:count]
        outputs, members = program(weights, arrays, lengths, present, voices)
        features["audio"] = [
            x if p else None for x, p in zip(features["audio"], present[:, 1], strict=True)
        ]
        expected = model.predict(
            features, dialogues=["d"] * count, speakers=voices.astype(str), members=True
        )
        np.testing.assert_allclose(outputs, expected.outputs, rtol=0, atol=3e-6)
        np.testing.assert_allclose(members, expected.members, rtol=0, atol=3e-6)
    others = program(weights, arrays, lengths, present, np.arange(6, dtype=np.int32) % 2)[0]
    assert abs(others - outputs).max() > 1e-5


def test_voices_are_numbered_as_in_training():
    numbered = jax.jit(export.first_spoken)
    for seed in range(5):
        voices = np.random.default_rng(seed).integers(-3, 3, size=9).astype(np.int32)
        expected = number_speakers(Grouping(np.arange(9)[None]), voices.astype(str), voices)
        np.testing.assert_array_equal(numbered(voices), expected)


def test_where_padding_counts_the_steps_are_trainings(tmp_path):
    export.write(untrained(quirks__pad_masking=False, count=1), tmp_path / "model.mmer")
    with zipfile.ZipFile(tmp_path / "model.mmer") as file:
        about = json.loads(file.read("model.json"))
    assert [m["shape"][1] for m in about["modalities"] if m["sequence"]] == ["7", "11"]


def test_mistakes_get_one_line(tmp_path, capsys):
    assert export.main([f"--workdir={tmp_path}", f"--out={tmp_path / 'm'}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "config.json does not exist" in error
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written: .*; choose another --out"):
        export.write(untrained(count=1), tmp_path / "file" / "model.mmer")

"""The originals' checkpoints in, ours out."""

import json
import os
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmer_jax import export_torch, import_torch
from mmer_jax.checkpoint import finished_trials, load_final
from mmer_jax.config import from_flat
from mmer_jax.interop import torch_folder, torch_layout
from mmer_jax.methods import make_stages
from mmer_jax.methods.stage import Batch
from mmer_jax.workdir import read_run

torch = pytest.importorskip("torch")
import original  # noqa: E402  (imports torch)

ORDER = {"audio": "A", "text": "L", "visual": "V"}
PATTERNS = np.array([[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1]], bool)
ALL_PATTERNS = ("a", "v", "t", "av", "at", "tv")  # as the reference file orders them
STEPS = ",".join(str(original.STEPS[letter]) for letter in ORDER.values())


def run_import(model, source, workdir, *more):
    args = [f"--model={model}", f"--from={source}", f"--workdir={workdir}", *more]
    return import_torch.main([*args, f"--max_steps={STEPS}"])


def refused(capsys, model, source, workdir, *more):
    """The message of an import that must fail and leave no workdir to evaluate."""
    assert run_import(model, source, workdir, *more) == 2
    assert not (workdir / "config.json").exists()
    return capsys.readouterr().err


def stored(workdir):
    """{trial key: {stage: params}} of a workdir."""
    return {
        key: jax.tree.map(lambda x, i=e.position: np.asarray(x)[i], load_final(workdir, e.group))
        for key, e in finished_trials(workdir).items()
    }


def predictions(workdir, features):
    """[K, B, C] of the only trial under PATTERNS."""
    values, spec = read_run(workdir)
    stage = make_stages(from_flat(values), spec)[-1]
    ((_, stages),) = stored(workdir).items()
    n = len(features["A"])
    batch = Batch(
        features={name: jnp.asarray(features[letter]) for name, letter in ORDER.items()},
        lengths={m.name: jnp.full(n, m.max_steps, jnp.int32) for m in spec.modalities},
        present=jnp.ones((n, 3), bool),
        labels=jnp.zeros((n, 1), jnp.int32),
        weights=jnp.ones(n),
        turns=jnp.ones((n, 1), bool),
        available=jnp.broadcast_to(PATTERNS[:, None], (len(PATTERNS), n, 3)),
        patterns=None,
        noisy=None,
        frozen={},
        constants={},
    )
    params = jax.tree.map(jnp.asarray, stages[stage.name])
    return np.asarray(jax.jit(stage.predict)(params, batch))


def expected(networks, features):
    return np.stack(
        [
            original.logits(networks, features, dict(zip(ORDER.values(), pattern, strict=True)))
            for pattern in PATTERNS
        ]
    )


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


# ---- what is imported ----


@pytest.mark.parametrize(("model", "parallel"), [("utt_fusion", True), ("mmin", False)])
def test_predictions_are_the_original_ones(tmp_path, model, parallel):
    networks = getattr(original, model)(dropout=0.5 if parallel else 0.0)
    original.save(networks, tmp_path / "run" / "3", parallel=parallel)
    assert run_import(model, tmp_path / "run", tmp_path / "w") == 0
    features = original.features()
    np.testing.assert_allclose(
        predictions(tmp_path / "w", features), expected(networks, features), atol=1e-5
    )
    assert list(stored(tmp_path / "w")) == ["{} fold 2 seed 0"]


def test_the_reference_values_of_ifmmin_hold(reference_dir, tmp_path):
    with np.load(reference_dir / "ifmmin.npz") as archive:
        reference = dict(archive)
    reference = {k: x for k, x in reference.items() if not k.startswith("param_after")}
    for group in ("param", "teacher"):
        tensors = {
            k.removeprefix(group + "/"): x
            for k, x in reference.items()
            if k.startswith(group + "/")
        }
        np.savez(tmp_path / f"{group}.npz", **tensors)
    steps = ",".join(str(reference[f"input/{name}"].shape[1]) for name in ORDER)
    args = ["--model=ifmmin", f"--from={tmp_path}/param.npz", f"--workdir={tmp_path}/w"]
    args += [f"--teacher={tmp_path}/teacher.npz", f"--max_steps={steps}"]
    assert import_torch.main(args) == 0
    features = {v: reference[f"input/{k}"].astype(np.float32) for k, v in ORDER.items()}
    ours = predictions(tmp_path / "w", features)
    rows = {"a": 1, "t": 2, "v": 3, "at": 4, "tv": 5}  # of PATTERNS, by the reference's rows
    theirs = dict(zip(ALL_PATTERNS, reference["output/logits_all_patterns"], strict=True))
    for name, row in rows.items():
        np.testing.assert_allclose(ours[row], theirs[name], atol=1e-5)
    assert set(next(iter(stored(tmp_path / "w").values()))) == {"utt_shared", "ifmmin"}


def test_folds_options_and_teacher(tmp_path, capsys):
    options = {"dropout_rate": 0.5, "embd_method_a": "last", "embd_method_v": "last", "n_blocks": 2}
    options |= {"AE_layers": "12,6,4", "max_dataset_size": float("inf")}
    for fold in (1, 2):
        original.save(
            original.mmin(fold), tmp_path / "mmin" / str(fold), f"{fold}0", False, options
        )
        original.save(original.utt_fusion(fold), tmp_path / "teacher" / str(fold))
    more = [f"--teacher={tmp_path}/teacher", "--config=configs/mmin_paper.py"]
    assert run_import("mmin", tmp_path / "mmin", tmp_path / "w", *more) == 0
    printed = capsys.readouterr().out
    assert "--config.model.pooling=last" in printed and "--config.trials.folds='[0, 1]'" in printed
    found = stored(tmp_path / "w")
    assert list(found) == ["{} fold 0 seed 0", "{} fold 1 seed 0"]
    weight = torch.load(tmp_path / "teacher/2/7_net_C.pth")["module.3.weight"].numpy()
    ours = found["{} fold 1 seed 0"]["utt_fusion"]["classifier"]["layer1"]["kernel"]
    np.testing.assert_array_equal(ours, weight.T)
    assert [e.best_epoch for e in finished_trials(tmp_path / "w").values()] == [9, 19]


def test_archives_import_without_torch(tmp_path):
    from safetensors.numpy import save_file

    arrays = original.arrays(original.utt_fusion())
    np.savez(tmp_path / "a.npz", **arrays)
    save_file({k.replace("/", ".", 1): x for k, x in arrays.items()}, tmp_path / "b.safetensors")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from mmer_jax.import_torch import main\n"
        "for name in ('a.npz', 'b.safetensors', 'c.pth'):\n"
        f"    args = ['--model=utt_fusion', '--from={tmp_path}/' + name]\n"
        f"    print(main([*args, '--workdir={tmp_path}/w_' + name[0]]))\n"
    )
    torch.save({}, tmp_path / "c.pth")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False
    )
    codes = [line for line in done.stdout.splitlines() if line in "02"]
    assert codes == ["0", "0", "2"], done.stderr
    assert "needs PyTorch" in done.stderr
    same(*(list(stored(tmp_path / f"w_{x}").values()) for x in "ab"))


# ---- what is refused ----


def test_missing_extra_and_misshapen_tensors_are_listed_together(tmp_path, capsys):
    arrays = original.arrays(original.mmin())
    arrays["A/rnn.weight_hh_l1"] = np.zeros(3)
    del arrays["V/rnn.bias_hh_l0"], arrays["AE/decoder_1.4.weight"]
    arrays["C/fc_out.weight"] = arrays["C/fc_out.weight"][:, :-1]
    arrays["Shared/netshared.shared_1.bias"] = np.zeros(8)
    arrays = {k: x for k, x in arrays.items() if not k.startswith("L/")}
    np.savez(tmp_path / "bad.npz", **arrays)
    message = refused(capsys, "mmin", tmp_path / "bad.npz", tmp_path / "w")
    for part in (
        "A: rnn.weight_hh_l1 is extra",
        "V: rnn.bias_hh_l0 is missing",
        "AE: decoder_1.4.weight is missing",
        "C: fc_out.weight has shape (4, 8), expected (4, 9)",
        "network Shared is extra",
        "network L is missing",
    ):
        assert part in message
    assert message.count("\n  ") == 6  # and nothing follows from these six


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("with_torch", [True, False])
def test_a_pickle_is_refused_and_not_run(tmp_path, capsys, with_torch):
    original.save(original.utt_fusion(), tmp_path / "1")
    content = {"fc_out.weight": Hostile(tmp_path / "ran")}
    with (tmp_path / "1" / "7_net_C.pth").open("wb") as file:
        torch.save(content, file) if with_torch else pickle.dump(content, file)
    message = refused(capsys, "utt_fusion", tmp_path, tmp_path / "w")
    assert "7_net_C.pth" in message and "convert it to .safetensors or .npz" in message
    assert not (tmp_path / "ran").exists()


def test_an_archive_of_objects_is_refused(tmp_path, capsys):
    objects = np.array([Hostile(tmp_path / "ran")], object)
    np.savez(tmp_path / "o.npz", **{"A/rnn.bias_ih_l0": objects})
    assert "plain arrays" in refused(capsys, "utt_fusion", tmp_path / "o.npz", tmp_path / "w")
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 64)
    message = refused(capsys, "utt_fusion", tmp_path / "x.safetensors", tmp_path / "w")
    assert "not a readable .safetensors" in message and not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_blocks": 5}, ["n_blocks is 5 in the options, 2 by the tensors"]),
        ({"dropout_rate": 0.0}, ["dropout_rate 0.0", "[0, 3]"]),
        ({"embd_size_l": 64}, ["embd_size_l is 64", "8 by the tensors"]),
        ({"embd_method_a": "attention"}, ["attention", "one element"]),
        ({"embd_method_a": "last"}, ["embd_method_a and embd_method_v"]),
    ],
)
def test_options_that_contradict_are_refused(tmp_path, capsys, options, words):
    original.save(original.mmin(), tmp_path / "run" / "1", options=options)
    message = refused(capsys, "mmin", tmp_path / "run", tmp_path / "w")
    assert all(word in message for word in words)


def test_other_faults_are_named(tmp_path, capsys):
    original.save(original.utt_fusion(), tmp_path / "run" / "1")
    source, w = tmp_path / "run", tmp_path / "w"
    assert "4 outputs" in refused(capsys, "utt_fusion", source, w, "--classes=a,b")
    assert "no epoch '9'" in refused(capsys, "utt_fusion", source, w, "--epoch=9")
    assert "has no teacher" in refused(capsys, "utt_fusion", source, w, f"--teacher={source}")
    assert "does not exist" in refused(capsys, "utt_fusion", tmp_path / "none", w)
    original.save(original.utt_fusion(), source / "1", epoch="12")
    assert "one of: 12, 7" in refused(capsys, "utt_fusion", source, w)
    original.save(original.utt_fusion(), source / "1", epoch="best")
    assert run_import("utt_fusion", source, w) == 0
    assert run_import("utt_fusion", source, w) == 2
    assert "is not empty" in capsys.readouterr().err


def test_printed_options_are_read_as_well(tmp_path):
    text = "----------- Options ----------\n                 n_blocks: 5     \t[default: 3]\n"
    text += "                     name: CAP_mmin                      \n  AE_layers: 256,128,64\n"
    text += "  share_weight: False   \n----------- End --------\n"
    (tmp_path / "train_opt.conf").write_text(text)
    assert torch_folder.read_options(tmp_path / "train_opt.conf") == {
        "n_blocks": 5,
        "name": "CAP_mmin",
        "AE_layers": "256,128,64",
        "share_weight": False,
    }


# ---- the other way round ----


@pytest.mark.parametrize("suffix", ["pth", "npz", "safetensors"])
def test_a_round_trip_changes_no_bit(tmp_path, suffix):
    for fold in (1, 4):
        original.save(original.mmin(fold), tmp_path / "mmin" / str(fold))
        original.save(original.utt_fusion(fold), tmp_path / "teacher" / str(fold))
    teacher = f"--teacher={tmp_path}/teacher"
    assert run_import("mmin", tmp_path / "mmin", tmp_path / "w", teacher) == 0
    args = [f"--workdir={tmp_path}/w", f"--out={tmp_path}/out", f"--format={suffix}"]
    assert export_torch.main(args) == 0
    # The exported options name the exported teacher.
    assert run_import("mmin", tmp_path / "out", tmp_path / "again") == 0
    same(stored(tmp_path / "w"), stored(tmp_path / "again"))
    values = [json.loads((tmp_path / w / "config.json").read_text()) for w in ("w", "again")]
    assert values[0] == values[1]


def test_the_originals_load_what_is_exported(tmp_path):
    networks = original.mmin(1)
    original.save(networks, tmp_path / "run" / "1")
    assert run_import("mmin", tmp_path / "run", tmp_path / "w") == 0
    assert export_torch.main([f"--workdir={tmp_path}/w", f"--out={tmp_path}/out"]) == 0
    fresh = original.mmin(2)
    for name, network in fresh.items():
        file = tmp_path / "out" / "1" / f"7_net_{name}.pth"
        network.load_state_dict(torch.load(file, weights_only=True), strict=True)
    features = original.features()
    np.testing.assert_array_equal(expected(networks, features), expected(fresh, features))


def test_what_the_originals_cannot_have_is_not_exported(tmp_path, capsys):
    original.save(original.utt_fusion(), tmp_path / "run" / "1")
    assert run_import("utt_fusion", tmp_path / "run", tmp_path / "w") == 0
    file = tmp_path / "w" / "config.json"
    values = json.loads(file.read_text())
    del values["digest"]  # what follows is meant
    args = [f"--workdir={tmp_path}/w", f"--out={tmp_path}/out"]
    assert export_torch.main([*args, "--point={}x"]) == 2
    assert "finished trials of 1 points; choose one by --point: {}" in capsys.readouterr().err
    audio, text, visual = values["corpus"]["modalities"].items()
    for there, words in (
        ([audio, text, ("face", [5, 6])], "audio, text, face; the originals have exactly audio"),
        ([text, audio, visual], "in the order text, audio, visual"),
    ):
        values["corpus"]["modalities"] = dict(there)
        file.write_text(json.dumps(values))
        assert export_torch.main(args) == 2
        assert words in capsys.readouterr().err


def test_dataparallel_prefix_of_each_network():
    fc = {"module.0.weight": 1, "module.3.bias": 2}
    assert torch_folder.without_parallel(fc) == fc
    for state in (fc, {"rnn.bias_ih_l0": 1}, fc | {"fc_out.bias": 3}, {"encoder_0.0.bias": 1}):
        wrapped = {f"module.{name}": x for name, x in state.items()}
        assert torch_folder.without_parallel(wrapped) == state


def test_vector_encoders_go_both_ways():
    rng = np.random.default_rng(0)
    shapes = {"module.0": (8, 5), "module.3": (8, 8)}
    state = {f"{k}.weight": rng.normal(size=s) for k, s in shapes.items()}
    state |= {f"{k}.bias": rng.normal(size=s[0]) for k, s in shapes.items()}
    params = torch_layout.encoder(state)
    assert set(params) == {"layer0", "layer1"} and params["layer0"]["kernel"].shape == (5, 8)
    same(torch_layout.to_torch(torch_layout.tensors_of(params, dropout=True), params), state)

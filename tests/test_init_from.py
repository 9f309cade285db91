"""Fine-tuning from another workdir, and an import from export to evaluation."""

import shlex
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers import assert_same_results, shrunk, train

from configs import demo
from mmer_jax import export_torch, import_torch, init_from, records
from mmer_jax.checkpoint import finished_trials, load_final
from mmer_jax.errors import UserError
from mmer_jax.group import GroupTraining
from mmer_jax.interrupt import Interrupted
from mmer_jax.results import read_results
from mmer_jax.sweep import single_point
from mmer_jax.trials import Trial

STAGES = ("utt_shared", "ifmmin")
# Such as an import has: features are as the originals have them.
SETTINGS = {"data__normalize": "audio", "data__clip_std": 0.0, "trials__folds": [0, 1]}


def config_of(**overrides):
    return shrunk(demo.get_config(), **{**SETTINGS, **overrides})


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run of folds 0 and 1."""
    workdir = tmp_path_factory.mktemp("source")
    train(config_of(), workdir)
    return workdir


def stored(workdir):
    return {
        key: jax.tree.map(lambda x, i=e.position: np.asarray(x)[i], load_final(workdir, e.group))
        for key, e in finished_trials(workdir).items()
    }


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def trials(*folds, seed=0):
    (point,) = single_point(config_of())
    return [Trial(point, fold, seed) for fold in folds]


def frozen(**overrides):
    """Training that changes nothing: what it ends with is what it starts from."""
    rates = {f"stages__{name}__learning_rate": 0.0 for name in STAGES}
    return config_of(**rates, **overrides)


# ---- train.init_from ----


@pytest.mark.slow
def test_a_resumed_run_does_not_start_again(source, tmp_path, monkeypatch):
    def config():
        return config_of(train__init_from=str(source))

    def stop(*args):
        del args
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(records.Reporter, "epoch", stop)
        with pytest.raises(Interrupted):
            train(config(), tmp_path / "parts")
    begun = []
    whole = GroupTraining._from_initial

    def remember(self, stage, state):
        begun.append(stage)
        return whole(self, stage, state)

    monkeypatch.setattr(GroupTraining, "_from_initial", remember)
    train(config(), tmp_path / "parts")
    assert begun == ["ifmmin"]  # the first stage went on from its checkpoint
    changed = stored(tmp_path / "parts")["{} fold 0 seed 0"]["ifmmin"]["classifier"]["out"]
    there = stored(source)["{} fold 0 seed 0"]["ifmmin"]["classifier"]["out"]
    assert np.any(changed["kernel"] != there["kernel"])


def test_other_folds_and_seeds_are_refused(source):
    for those in (trials(0, 2), trials(0, seed=1)):
        with pytest.raises(UserError, match="it has: fold 0 seed 0, fold 1 seed 0.*other folds"):
            init_from.initial_params(str(source), those, STAGES)


def test_stages_that_the_source_lacks(source, monkeypatch, tmp_path):
    given = init_from.initial_params(str(source), trials(1, 0), STAGES[:1])
    same(given["utt_shared"][0], stored(source)["{} fold 1 seed 0"]["utt_shared"])
    with pytest.raises(UserError, match="none of utt_fusion"):
        init_from.initial_params(str(source), trials(0), ["utt_fusion"])
    whole = init_from.load_final
    student = {
        "ifmmin": whole(source, next(iter(finished_trials(source).values())).group)["ifmmin"]
    }
    monkeypatch.setattr(init_from, "load_final", lambda *args: student)
    with pytest.raises(UserError, match="without its teacher utt_shared.*--teacher"):
        init_from.initial_params(str(source), trials(0), STAGES)
    with pytest.raises(UserError, match="has no finished trials"):
        init_from.initial_params(str(tmp_path), trials(0), STAGES)
    assert init_from.initial_params("", trials(0), STAGES) == {}


def test_parameters_of_another_model_are_all_named(source, tmp_path):
    config = frozen(train__init_from=str(source), model__classifier=(8, 8))
    with pytest.raises(UserError, match="classifier/layer1/bias is missing, classifier/layer1/ker"):
        train(config, tmp_path / "a")
    config = frozen(train__init_from=str(source), model__embedding=6)
    with pytest.raises(UserError, match=r"encoder_audio/b_hidden has shape \(32,\), expected \(24"):
        train(config, tmp_path / "b")


# ---- an import, from the command that it prints ----


@pytest.fixture(scope="module")
def imported(source, tmp_path_factory):
    """(workdir of `source` exported and imported again, the command that was printed)."""
    root = tmp_path_factory.mktemp("imported")
    assert export_torch.main([f"--workdir={source}", f"--out={root}/out", "--format=npz"]) == 0
    file = root / "small.py"
    file.write_text(
        "from configs import demo\nfrom helpers import shrunk\n\n\n"
        "def get_config():\n    return shrunk(demo.get_config())\n"
    )
    args = ["--model=ifmmin", f"--from={root}/out", f"--workdir={root}/w", f"--config={file}"]
    args += ["--pad_masking", "--max_steps=16,12,0"]
    parsed = import_torch._parser().parse_args(args)
    overrides = import_torch.import_checkpoints(parsed)
    return root / "w", [overrides[0], f"--workdir={root}/w", *overrides[1:]]


@pytest.mark.slow
def test_an_import_evaluates_as_the_run_it_came_from(source, imported):
    workdir, command = imported
    same(stored(workdir), stored(source))
    code = "import sys; sys.path.insert(0, 'tests'); import runpy\n"
    code += "runpy.run_module('mmer_jax.main', run_name='__main__', alter_sys=True)"
    arguments = shlex.split(" ".join(command))
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "epoch" not in done.stdout  # nothing is trained
    assert_same_results(*[read_results(path / "results.csv") for path in (workdir, source)])
    wrong = [*arguments, "--config.quirks.pad_masking=False"]
    done = subprocess.run(
        [sys.executable, "-c", code, *wrong], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "quirks.pad_masking there True, here False" in done.stderr


def test_training_starts_from_the_given_parameters(source, imported, tmp_path):
    train(frozen(train__init_from=str(imported[0])), tmp_path)
    same(stored(tmp_path), stored(source))

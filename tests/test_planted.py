"""A planted utterance changes nothing where it is validation or test: no database, no statistic, no
curriculum has seen it, or the parameters would differ.
"""

import jax
import numpy as np
import pytest
from helpers import train
from safetensors.numpy import load_file
from test_study import folds_of, lines_of, small, write_dialogues

from configs import hardy, ramer
from mmer_jax.checkpoint import finished_trials, load_final

pytestmark = pytest.mark.slow
PLANTED = 22  # of a dialogue of four


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """The same corpus twice: in the second one utterance has other features and another label."""
    root = tmp_path_factory.mktemp("data")
    return write_dialogues(root / "plain"), write_dialogues(root / "planted", marked=PLANTED)


CASES = {"ramer": (ramer, "score"), "hardy": (hardy, "emotion")}


@pytest.fixture(scope="module", params=CASES)
def workdirs(request, roots, tmp_path_factory):
    """Both trained for an epoch a stage, so that validation chooses nothing."""
    method, label = CASES[request.param]
    found = []
    for root in roots:
        found.append(tmp_path_factory.mktemp("run"))
        config = small(method.get_config(), root, data__label=label, eval__study="all")
        train(config, found[-1])
    return found


def parts(roots):
    """fold -> which part of it has the planted utterance."""
    _, folds = folds_of(roots[0])
    return {
        number: next(p for p in ("train", "validation", "test") if PLANTED in set(getattr(fold, p)))
        for number, fold in enumerate(folds)
    }


def test_it_is_once_in_each_part(roots):
    assert sorted(parts(roots).values()) == ["test", "train", "validation"]


def test_parameters_of_every_stage(roots, workdirs):
    """These follow from the statistics, the databases and the curriculum."""
    stored = []
    for workdir in workdirs:
        done = finished_trials(workdir)
        (group,) = {trial.group for trial in done.values()}
        trees = load_final(workdir, group)
        assert set(trees) in ({"ramer_base", "ramer"}, {"hardy_unimodal", "hardy_teacher", "hardy"})
        place = {int(key.split(" fold ")[1].split()[0]): t.position for key, t in done.items()}
        stored.append((trees, place))
    (plain, place), (planted, _) = stored
    for fold, part in parts(roots).items():
        for stage in plain:
            same = [
                np.array_equal(a[place[fold]], b[place[fold]])
                for a, b in zip(
                    jax.tree.leaves(plain[stage]), jax.tree.leaves(planted[stage]), strict=True
                )
            ]
            assert all(same) == (part != "train"), (fold, stage)


def test_statistics(roots, workdirs):
    plain, planted = (np.load(workdir / "normalization.npz") for workdir in workdirs)
    for name in plain.files:
        if plain["label_std"].max() == 1 and name.startswith("label"):
            continue  # classes have none
        for fold, part in parts(roots).items():
            same = np.array_equal(plain[name][fold], planted[name][fold])
            assert same == (part != "train"), (name, fold)


def test_databases(roots, workdirs):
    files = [sorted(workdir.glob("databases/*/*.safetensors")) for workdir in workdirs]
    if not files[0]:
        pytest.skip("HARDY-MER keeps none: its curriculum is over with training")
    for fold, part in parts(roots).items():
        plain, planted = (load_file(of[fold])["hidden"] for of in files)
        assert np.array_equal(plain, planted) == (part != "train")


def test_curricula_and_neighbours_of_training_utterances(roots, workdirs):
    """Of those whom training meets: hardness, neighbours and labels, and never the planted one."""
    name = f"u{PLANTED}"
    plain, planted = (
        [line for line in lines_of(workdir) if line["split"] == "train"] for workdir in workdirs
    )
    of_part = parts(roots)
    for a, b in zip(plain, planted, strict=True):
        if of_part[int(a["fold"])] != "train":
            assert a == b and name not in b.values()
    assert any(name in line.values() for line in planted)


def test_no_utterance_of_any_split_finds_it_unless_it_trains(roots, workdirs):
    of_part = parts(roots)
    for line in lines_of(workdirs[1]):
        found = [value for key, value in line.items() if key.startswith("neighbour")]
        assert f"u{PLANTED}" not in found or of_part[int(line["fold"])] == "train"

"""The MC-EIU layout, on small files in exactly that form, through the command."""

import h5py
import jax
import numpy as np
import pytest
from helpers import shrunk, train
from releases import (
    MC_EIU,
    MC_EIU_SETS,
    MC_EIU_UNLABELLED,
    make_mc_eiu,
    write_h5,
    write_mc_eiu_targets,
)

from configs import mc_eiu_english, mc_eiu_mandarin
from mmer_jax import load
from mmer_jax.data.feature_dir import read_directory, read_utterances
from mmer_jax.data.layouts import mc_eiu
from mmer_jax.data.load import load_corpus
from mmer_jax.data.speakers import with_speakers
from mmer_jax.data.splits import make_folds
from mmer_jax.methods import make_stages

NAMES = tuple(MC_EIU)


@pytest.fixture
def release(tmp_path):
    return tmp_path / "release", *make_mc_eiu(tmp_path / "release")


@pytest.fixture
def refused(release, tmp_path, capsys):
    def run(*flags):
        assert mc_eiu.main([str(release[0]), str(tmp_path / "out"), *flags]) == 2
        assert sorted(p.name for p in tmp_path.iterdir()) == ["release"]
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize("one_hot", [True, False])
def test_every_value_order_and_column(release, tmp_path, one_hot, capsys):
    root, ids, told = release
    labelled = {i: t for i, t in told.items() if i != MC_EIU_UNLABELLED}
    write_mc_eiu_targets(root / "target" / "1", labelled, one_hot)
    with h5py.File(root / "A/wav2vec.h5", "a") as file:
        file["dia9_1_0"] = np.zeros((2, 5))
    assert mc_eiu.main([str(root), str(tmp_path / "out")]) == 0
    assert "1 not among the utterances, left out: dia9_1_0" in capsys.readouterr().out
    corpus = read_directory(tmp_path / "out", NAMES, label="intent", classes=mc_eiu.INTENTS)
    assert corpus.ids.tolist() == [i for dialogue in sorted(ids) for i in ids[dialogue]]
    found = corpus.read(np.arange(len(corpus)))
    for row, utt_id in enumerate(corpus.ids):
        dialogue, turn = utt_id.rsplit("_", 1)
        t, known = told[utt_id], utt_id in labelled
        assert {name: column[row] for name, column in corpus.columns.items()} == {
            "utt_id": utt_id,
            "dialogue": dialogue,
            "turn": turn,
            "speaker": f"{dialogue}:{t['speaker']}",
            "split": MC_EIU_SETS[t["split"]] if known else "",
            "emotion": mc_eiu.EMOTIONS[t["emotion"]] if known else "",
            "intent": mc_eiu.INTENTS[t["intent"]] if known else "",
        }
        for name in NAMES:
            steps = len(t[name])
            np.testing.assert_array_equal(found[name][row, :steps], t[name])
            assert not found[name][row, steps:].any()
            assert corpus.lengths[name][row] == steps
    (fold,) = make_folds(corpus, "split")
    assert len(fold.validation) == sum(t["split"] == "val" for t in labelled.values())


def test_a_fold_is_chosen_and_classes_are_named(release, refused, tmp_path, capsys):
    root, _, told = release
    write_mc_eiu_targets(root / "target" / "2", told)
    assert "has the folds: 1, 2; choose one with --fold" in refused()
    assert "choose one with --fold" in refused("--fold=../1")
    out = tmp_path / "out"
    names = "--emotions=a,b,c,d,e,f,g"
    assert mc_eiu.main([str(root), str(out), "--fold=2", names]) == 0
    columns = read_utterances(out / "utterances.csv")
    assert all(columns["emotion"]) and set(columns["emotion"]) <= set("abcdefg")
    capsys.readouterr()
    assert mc_eiu.main([str(root), str(tmp_path / "b"), "--fold=2", "--intents=a,b"]) == 2
    assert ", 9], expected [n] or [n, 2] for the classes a, b" in capsys.readouterr().err


def test_all_that_is_wrong_with_the_features_is_said_at_once(release, refused, tmp_path, capsys):
    root = release[0]
    with h5py.File(root / "A/wav2vec.h5", "a") as file:
        for name in ("dia0_0_0", "dia0_0_1", "dia1_7_0", "dia1_7_1", "dia1_7_2"):
            del file[name]
        file["dia1_7_0"] = np.zeros((2, 3, 4))
        file["dia1_7_1"] = np.zeros((2, 9))
        file["dia1_7_2"] = ["text"]
    with h5py.File(root / "V/ResNet-50.h5", "a") as file:
        del file["dia2_14_0"]
    message = refused()
    assert "wav2vec.h5 lacks 2 utterance(s): dia0_0_0, dia0_0_1;" in message
    assert "2 that cannot be used: dia1_7_0 has shape [2, 3, 4]" in message
    assert "dia1_7_2 holds dtype object, expected numbers" in message
    assert "expected [T, 5], 1 differ: dia1_7_1 has [2, 9]" in message
    assert "ResNet-50.h5 lacks 1 utterance(s): dia2_14_0;" in message
    with h5py.File(root / "A/wav2vec.h5", "a") as file:
        for name in ("dia1_7_0", "dia1_7_1", "dia1_7_2"):
            del file[name]
    assert mc_eiu.main([str(root), str(tmp_path / "out"), "--missing=absent"]) == 0
    assert "audio is absent for 5" in capsys.readouterr().out
    corpus = read_directory(tmp_path / "out", NAMES, label="emotion", nonfinite="missing")
    absent = {(corpus.ids[i], NAMES[m]) for i, m in np.argwhere(~corpus.present)}
    assert len(absent) == 6 and ("dia2_14_0", "visual") in absent


def test_datasets_may_not_claim_or_point_beyond_their_file(release, refused, tmp_path):
    root = release[0]
    other = root.parent / "release" / "other.h5"
    write_h5(other, {"x": np.zeros((2, 5))})
    with h5py.File(root / "A/wav2vec.h5", "a") as file:
        for i in range(6):
            del file[f"dia1_7_{i}"]
        file.create_dataset("dia1_7_0", shape=(10**9, 1000), chunks=(1, 1000))
        file.create_dataset("dia1_7_1", shape=(4, 5), chunks=(1, 5))
        file["dia1_7_2"] = h5py.ExternalLink(str(other), "x")
        file["dia1_7_3"] = h5py.SoftLink("/dia1_7_4")
        layout = h5py.VirtualLayout((2, 5), "f8")
        layout[:] = h5py.VirtualSource(str(other), "x", (2, 5))
        file.create_virtual_dataset("dia1_7_4", layout)
        file.create_dataset(
            "dia1_7_5", (2, 5), "f8", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
        )
    message = refused()
    assert "6 that cannot be used: dia1_7_0 claims float32[1000000000, 1000], too much" in message
    assert "dia1_7_1 claims float32[4, 5], of which 0 bytes are stored" in message
    assert "dia1_7_2 links to another place, dia1_7_3 links to another place" in message
    assert "dia1_7_4 is stored in another file" in message
    with h5py.File(root / "A/wav2vec.h5", "a") as file:
        for i in range(5):
            del file[f"dia1_7_{i}"]
            file[f"dia1_7_{i}"] = np.zeros((2, 5))
    assert "dia1_7_5 is stored in another file" in refused()
    whole = (root / "V/ResNet-50.h5").read_bytes()
    (root / "V/ResNet-50.h5").write_bytes(whole[:-100])
    assert "ResNet-50.h5 is not an HDF5 file, or a truncated one" in refused()
    (root / "V/ResNet-50.h5").unlink()
    (root / "V/ResNet-50.h5").symlink_to("/etc/passwd")
    assert "which is outside of" in refused()


def test_faulty_dialogues_and_speakers(release, refused):
    root, ids, told = release
    index = root / "Dia_Index/dia_index.h5"

    def message(changed):
        write_h5(index, {k: np.array(v, "S") for k, v in (ids | changed).items()})
        return refused()

    swapped = [ids["dia0_0"][1], ids["dia0_0"][0], *ids["dia0_0"][2:]]
    assert "the turns of dia0_0 are out of order: dia0_0_1, dia0_0_0" in message(
        {"dia0_0": swapped}
    )
    assert "1 duplicate utterance id(s): dia0_0_0" in message({"dia9": ["dia0_0_0"]})
    assert "1 id(s) that cannot be file names" in message({"dia9": ["../x"]})
    with h5py.File(root / "Speaker/speaker.h5", "a") as file:
        file["x"] = 0
    assert "3 utterance(s) that Dia_Index/dia_index.h5 does not list: dia0_0_0" in message(
        {"dia0_0": ["x"]}
    )
    write_h5(index, {"dia0_0": np.arange(3)})
    assert "dia0_0 holds dtype int64, expected text" in refused()
    write_h5(index, {k: np.array(v, "S") for k, v in ids.items()})
    speakers = {i: t["speaker"] for i, t in told.items() if i != "dia0_0_1"}
    write_h5(root / "Speaker/speaker.h5", speakers | {"dia0_0_0": 0.5, "dia0_0_2": [1, 2]})
    message = refused()
    assert "3 without a speaker: dia0_0_0 is 0.5, expected a number such as 0 or 1" in message
    assert "dia0_0_1 is not there" in message and "dia0_0_2 has shape [2]" in message


def test_faulty_targets(release, refused):
    root, _, told = release
    folder = root / "target" / "1"
    names = np.load(folder / "trn_int2name.npy")
    labels = np.load(folder / "trn_emotion_label.npy")

    def message(**files):
        write_mc_eiu_targets(folder, told)
        for name, array in files.items():
            np.save(folder / f"{name}.npy", array)
        return refused()

    soft = labels.copy()
    soft[2] = [0.5, 0.5, 0, 0, 0, 0, 0]
    soft[3] = np.nan
    said = message(trn_emotion_label=np.concatenate([soft, labels[:1]])[: len(names)])
    assert (
        f"2 label(s) that are neither one-hot nor one of 0 to 6: {names[2]} has [0.5, 0.5" in said
    )
    assert "has 5 rows, its int2name has" in message(trn_emotion_label=labels[:5])
    assert "expected [n] or [n, 7] for the classes happy" in message(
        trn_emotion_label=labels[:, :4]
    )
    assert "of another set: " in message(val_int2name=names)
    assert "1 duplicate utterance id(s): " in message(
        trn_int2name=np.concatenate([names[:-1], names[:1]])
    )
    assert "does not list: dia7_49_99" in message(
        tst_int2name=np.array(["dia7_49_99", *np.load(folder / "tst_int2name.npy")[1:]])
    )
    assert "holds dtype object, expected text" in message(trn_int2name=np.array(names, object))
    write_mc_eiu_targets(folder, told)
    (folder / "tst_intent_label.npy").unlink()
    assert "tst_intent_label.npy does not exist" in refused()


def test_several_feature_files_need_a_choice(release, refused, tmp_path):
    root = release[0]
    (root / "A/comparE.h5").write_bytes((root / "A/wav2vec.h5").read_bytes())
    assert "has 2 .h5 files (comparE.h5, wav2vec.h5), expected one" in refused()
    assert "A/none.h5 does not exist" in refused("--audio=A/none.h5")
    assert "does not exist" in refused("--audio=../wav2vec.h5")
    assert mc_eiu.main([str(root), str(tmp_path / "out"), "--audio=A/comparE.h5"]) == 0


# ---- the shipped configurations ----


@pytest.mark.parametrize("config", [mc_eiu_english, mc_eiu_mandarin])
def test_a_configuration_finds_what_the_importer_writes(release, tmp_path, config):
    """Both tasks, the split, the dialogues and the modalities, at the published sizes."""
    assert mc_eiu.main([str(release[0]), str(tmp_path / "out")]) == 0
    made = config.get_config()
    with made.unlocked():
        made.data.root, made.data.source = str(tmp_path / "out"), "directory"
    corpus = with_speakers(load_corpus(made))
    assert {task.name: len(task.classes) for task in corpus.spec.tasks} == {
        "emotion": 7,
        "intent": 9,
    }
    assert corpus.spec.n_speakers == 2 and len(make_folds(corpus, made.data.splits)) == 1
    first, second = make_stages(made, corpus.spec)
    assert (first.patterns, second.patterns, second.history) == ("full", "full", 2)
    earlier = {first.name: jax.eval_shape(first.init, jax.random.key(0), {})}
    params = jax.eval_shape(second.init, jax.random.key(0), earlier)
    assert {"conv2_kernel", "conv3_kernel", "conv4_kernel"} < set(params["task1_encoder_text"])
    assert params["context"]["gru_audio"]["w_hidden_1"].shape == (2, 128, 3 * 128)


@pytest.mark.slow
def test_a_configuration_trains_on_an_import(release, tmp_path):
    assert mc_eiu.main([str(release[0]), str(tmp_path / "out")]) == 0
    made = shrunk(
        mc_eiu_english.get_config(), data__root=str(tmp_path / "out"), data__source="directory"
    )
    results, _ = train(made, tmp_path / "run", report=True)
    assert {"emotion/weighted_F1", "intent/weighted_F1", "joint_wf1"} <= {r.metric for r in results}
    assert load(tmp_path / "run").reads_speakers
    assert "emotion × intent" in (tmp_path / "run" / "report" / "report.md").read_text()

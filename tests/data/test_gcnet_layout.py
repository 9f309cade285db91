"""The GCNet layout, on small folders in exactly that form, through the command."""

import os
import re

import numpy as np
import pytest
from releases import GCNET, make_gcnet, save_gcnet, write_gcnet_labels

from mmer_jax.data.feature_dir import read_directory, read_utterances
from mmer_jax.data.layouts import gcnet
from mmer_jax.data.splits import make_folds

NAMES = tuple(GCNET)
CLASSES = ("happy", "sad", "neutral", "angry")


@pytest.fixture
def release(tmp_path):
    return tmp_path / "release", *make_gcnet(tmp_path / "release")


@pytest.fixture
def refused(release, tmp_path, capsys):
    """The command on the release, which must fail: what it prints, and nothing is written."""

    def run(*flags):
        assert gcnet.main([str(release[0]), str(tmp_path / "out"), *flags]) == 2
        assert not (tmp_path / "out").exists()
        assert sorted(p.name for p in tmp_path.iterdir()) == ["release"]
        said = capsys.readouterr()
        assert not said.out
        return said.err

    return run


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_every_value_order_and_column(tmp_path, protocol, capsys):
    members, features = make_gcnet(tmp_path / "release", protocol)
    save_gcnet(tmp_path / "release", "audio", "Ses01F_impro09_F000.npy", np.zeros(4))
    assert gcnet.main([str(tmp_path / "release"), str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "1 not among the utterances, left out: Ses01F_impro09_F000" in said
    assert "--config.data.splits=session" in said
    corpus = read_directory(tmp_path / "out", NAMES, label="emotion")
    ids, labels, speakers = members[:3]
    assert corpus.ids.tolist() == [i for dialogue in sorted(ids) for i in ids[dialogue]]
    found = corpus.read(np.arange(len(corpus)))
    for row, utt_id in enumerate(corpus.ids):
        dialogue, _, turn = utt_id.rpartition("_")
        turn = int(turn[1:])
        told = {name: column[row] for name, column in corpus.columns.items()}
        assert told == {
            "utt_id": utt_id,
            "dialogue": dialogue,
            "turn": str(turn),
            "speaker": dialogue[:5] + speakers[dialogue][turn],
            "session": dialogue[3:5],
            "split": "train" if dialogue in members[4] else "test",
            "emotion": CLASSES[labels[dialogue][turn]],
        }
        for name in NAMES:
            expected = features[utt_id][name].astype(np.float32)
            np.testing.assert_allclose(found[name][row], expected, rtol=1e-6)
    assert len(make_folds(corpus, "session")) == 5


def test_frames_are_kept_when_asked_for(release, tmp_path):
    root, _, features = release
    assert gcnet.main([str(root), str(tmp_path / "out"), "--pool=none"]) == 0
    corpus = read_directory(tmp_path / "out", NAMES, label="emotion")
    assert [m.is_sequence for m in corpus.spec.modalities] == [False, True, True]
    assert set(corpus.lengths["visual"]) == {2, 3}
    np.testing.assert_array_equal(
        corpus.read(np.array([7]))["text"][0], features[corpus.ids[7]]["frames"]
    )


def test_sentiment_of_monologues_with_three_parts(tmp_path):
    """CMU-MOSI: seven members, one nameless speaker for each video, real-valued labels."""
    root = tmp_path / "mosi"
    ids = {f"vid{v}": [f"vid{v}_{i}" for i in range(1, 4)] for v in "cab"}
    values = np.float32([2.4, -3.0, float("nan")])
    labels = {video: list(values) for video in ids}
    speakers = {video: [""] * 3 for video in ids}
    for utt_id in sum(ids.values(), []):
        for name in NAMES:
            save_gcnet(root, name, f"{utt_id}.npy", np.arange(3.0))
    write_gcnet_labels(
        root, [ids, labels, speakers, ids, {"vida"}, {"vidb"}, {"vidc"}], name="MOSI_2way.pkl"
    )
    assert gcnet.main([str(root), str(tmp_path / "out")]) == 0
    columns = read_utterances(tmp_path / "out" / "utterances.csv")
    assert columns["sentiment"].tolist() == ["2.4", "-3.0", ""] * 3
    assert columns["speaker"].tolist() == columns["dialogue"].tolist() == sorted(list(ids) * 3)
    assert columns["split"].tolist() == sum(([p] * 3 for p in ("train", "validation", "test")), [])
    assert "session" not in columns


def test_a_pickle_that_would_run_something_does_not(release, refused, tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    root, members, _ = release
    for protocol in range(6):
        write_gcnet_labels(root, [Hostile(), *members[1:]], protocol)
        message = refused()
        assert "IEMOCAP_features_raw_4way.pkl: it names posix.system" in message
        assert "nothing of it was run" in message
    for name in (b"builtins\neval", b"numpy\nload", b"builtins\ngetattr", b"os\nsystem"):
        (root / "IEMOCAP_features_raw_4way.pkl").write_bytes(b"c" + name + b"\n(S'1'\ntR.")
        assert f"names {name.decode().replace(chr(10), '.')}" in refused()


def test_all_that_is_wrong_with_the_features_is_said_at_once(release, refused):
    root = release[0]
    audio, text = (root / "features" / GCNET[name] for name in ("audio", "text"))
    for i in (0, 3):
        (audio / f"Ses01M_impro01_{'FMMF'[i]}00{i}.npy").unlink()
    whole = (text / "Ses02F_impro01_F000.npy").read_bytes()
    (text / "Ses02F_impro01_F000.npy").write_bytes(whole[:-4])
    np.save(text / "Ses03M_impro01_F000.npy", np.zeros((2, 3, 5)))
    np.save(text / "Ses04F_impro01_F000.npy", np.zeros((2, 7)))
    np.save(text / "Ses05M_impro01_F000.npy", np.array([{}]))
    (root / "features" / GCNET["visual"] / "Ses01M_impro01_F000" / "both_FM.npy").touch()
    message = refused()
    assert "lacks 2 utterance(s): Ses01M_impro01_F000, Ses01M_impro01_F003;" in message
    assert "3 that cannot be used: Ses02F_impro01_F000 is truncated: 184 bytes" in message
    assert "Ses03M_impro01_F000 has shape [2, 3, 5], expected [D] or [T, D]" in message
    assert "Ses05M_impro01_F000 holds dtype object, expected numbers" in message
    assert "expected [T, 5], 1 differ: Ses04F_impro01_F000 has [2, 7]" in message
    assert "whose name should have an F or an M for its speaker" in message
    refused("--missing=absent")


def test_absent_modalities_are_rows_of_nan(release, tmp_path, capsys):
    root = release[0]
    visual = root / "features" / GCNET["visual"]
    (root / "features" / GCNET["audio"] / "Ses01M_impro01_F000.npy").unlink()
    for path in visual.glob("Ses01M_impro01_M001/M_*"):  # the listener's faces stay
        path.unlink()
    for name in ("audio", "text"):
        (root / "features" / GCNET[name] / "Ses05M_impro01_F003.npy").unlink()
    for path in visual.glob("Ses05M_impro01_F003/*"):
        path.unlink()
    assert gcnet.main([str(root), str(tmp_path / "out"), "--missing=absent"]) == 0
    said = capsys.readouterr().out
    assert "audio is absent for 1: Ses01M_impro01_F000" in said
    assert "visual is absent for 1: Ses01M_impro01_M001" in said
    assert "1 without any features, left out: Ses05M_impro01_F003" in said
    corpus = read_directory(tmp_path / "out", NAMES, label="emotion", nonfinite="missing")
    assert [(corpus.ids[i], NAMES[m]) for i, m in np.argwhere(~corpus.present)] == [
        ("Ses01M_impro01_F000", "audio"),
        ("Ses01M_impro01_M001", "visual"),
    ]
    dialogue = corpus.columns["dialogue"] == "Ses05M_impro01"
    assert corpus.columns["turn"][dialogue].tolist() == ["0", "1", "2", "4", "5", "6", "7"]


def changed(members, table, dialogue, value):
    return [*members[:table], {**members[table], dialogue: value}, *members[table + 1 :]]


def test_faulty_labels(release, refused):
    root, members, _ = release
    dialogue = "Ses01M_impro01"
    ids = members[0][dialogue]

    def message(changed_members):
        write_gcnet_labels(root, changed_members)
        return refused()

    assert "has 7 in videoIDs, 6 in videoLabels, 7 in videoSpeakers" in message(
        changed(members, 1, dialogue, [0] * 6)
    )
    for bad in ("../../etc/passwd", "/etc/passwd", "..", "", "a\nb"):
        said = message(changed(members, 0, dialogue, [bad, *ids[1:]]))
        assert "1 id(s) that cannot be file names" in said and ascii(bad) in said
    assert f"1 duplicate utterance id(s): {ids[0]}" in message(
        changed(members, 0, dialogue, [*ids[:-1], ids[0]])
    )
    said = message(changed(members, 1, dialogue, [7] + [0] * 6))
    assert "1 label(s) that are none of 0 to 5 (happy, " in said and f"{ids[0]} has 7;" in said
    assert "7 label(s) that are none of 0 to 5" in message(
        changed(members, 1, dialogue, ["angry"] + [0.5] * 6)
    )
    moved = [
        {"Ses01E_impro01" if k == dialogue else k: v for k, v in m.items()} for m in members[:4]
    ]
    said = message([*moved, set(moved[0]), set()])
    assert f"7 utterance(s) of IEMOCAP in another dialogue: {ids[0]} in Ses01E_impro01" in said
    assert "speaker 'X', expected F or M" in message(changed(members, 2, dialogue, ["X"] * 7))
    assert "1 test video(s) that are unknown or in two parts: Ses01M_impro01" in message(
        [*members[:5], {dialogue}]
    )
    assert "expected a tuple of 6 (IEMOCAP) or 7 members" in message(members[:5])
    write_gcnet_labels(root, members, name="IEMOCAP_features_raw_6way.pkl")
    write_gcnet_labels(root, members)
    assert "has 2 label pickles" in refused()
    (root / "IEMOCAP_features_raw_6way.pkl").unlink()
    path = root / "IEMOCAP_features_raw_4way.pkl"
    path.write_bytes(path.read_bytes()[:-20])
    assert "is no pickle, or a damaged one" in refused()


def test_class_names_may_be_given(release, tmp_path):
    root = str(release[0])
    assert gcnet.main([root, str(tmp_path / "a"), "--classes=w,x,y,z"]) == 0
    columns = read_utterances(tmp_path / "a" / "utterances.csv")
    assert columns["emotion"][:5].tolist() == ["w", "x", "y", "z", "w"]


def test_links_that_leave_the_release_and_claims_beyond_the_file(release, refused, tmp_path):
    root = release[0]
    audio = root / "features" / GCNET["audio"]
    names = sorted(p.name for p in audio.iterdir())[:4]
    for name in names[:3]:
        (audio / name).unlink()
    (audio / names[0]).symlink_to("/etc/passwd")
    os.mkfifo(audio / names[1])
    header = re.sub(rb"\(4,\), }", b"(1000000000000,), }", (audio / names[3]).read_bytes()[:128])
    (audio / names[2]).write_bytes(header[:10] + header[10:].ljust(118)[:118] + b"\0" * 32)
    message = refused()
    assert "/etc/passwd, which is outside of" in message and "is not a file" in message
    assert "is truncated: 160 bytes, its header <f8[1000000000000] needs 8000000000128" in message
    assert "3 that cannot be used" in message


def test_a_full_place_is_not_overwritten(release, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    assert gcnet.main([str(release[0]), str(tmp_path / "out")]) == 2
    assert "out exists and is not empty" in capsys.readouterr().err

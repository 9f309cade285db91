"""Small releases in exactly the published layouts, made on the spot."""

import pickle

import h5py
import numpy as np

from mmer_jax.data.layouts import mer2024

# ---- GCNet ----

GCNET = {"audio": "wav2vec-large-c-UTT", "text": "deberta-large-4-UTT", "visual": "manet_UTT"}
GCNET_LABELS = "IEMOCAP_features_raw_4way.pkl"


def make_gcnet(root, protocol=4, sessions=5):
    """Two dialogues a session; returns (label members, utterance -> modality -> [D])."""
    rng = np.random.default_rng(0)
    ids, labels, speakers, sentences, features = {}, {}, {}, {}, {}
    for session in range(1, sessions + 1):
        for kind in ("impro01", "script02_1"):
            dialogue = f"Ses0{session}{'FM'[session % 2]}_{kind}"
            speakers[dialogue] = list("FMMFMFFM")[: 6 + session % 3]
            ids[dialogue] = [f"{dialogue}_{s}{i:03d}" for i, s in enumerate(speakers[dialogue])]
            labels[dialogue] = [i % 4 for i in range(len(ids[dialogue]))]
            sentences[dialogue] = [f"Grüße {i}." for i in range(len(ids[dialogue]))]
    for dialogue in ids:
        for i, (utt_id, speaker) in enumerate(zip(ids[dialogue], speakers[dialogue], strict=True)):
            audio, text = rng.normal(size=4), rng.normal(size=(3, 5)).astype(np.float32)
            faces = {s: rng.normal(size=(2 + i % 2, 6)) for s in "FM"}
            save_gcnet(root, "audio", f"{utt_id}.npy", audio[None] if i % 2 else audio)
            save_gcnet(root, "text", f"{utt_id}.npy", text)
            for s in "FM":
                for n, face in enumerate(faces[s]):
                    save_gcnet(root, "visual", f"{utt_id}/{s}_{n:03d}.npy", face[None])
            means = text.mean(axis=0, dtype=np.float64), faces[speaker].mean(axis=0)
            features[utt_id] = dict(zip(GCNET, (audio, *means), strict=True))
            features[utt_id]["frames"] = text
    videos = sorted(ids)
    cut = len(videos) * 4 // 5
    members = [ids, labels, speakers, sentences, set(videos[:cut]), set(videos[cut:])]
    write_gcnet_labels(root, members, protocol)
    return members, features


def save_gcnet(root, modality, name, array):
    path = root / "features" / GCNET[modality] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def write_gcnet_labels(root, members, protocol=4, name=GCNET_LABELS):
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(pickle.dumps(tuple(members), protocol))


# ---- MER2024 ----

MER2024_DIMS = {"audio": 4, "text": 6, "visual": 3}
MER2024_EMOTIONS = ("neutral", "angry", "happy", "sad", "worried", "surprise")


def mer2024_labels():
    """The members of label-6way.npz."""
    train = {
        f"sample_{i:08d}": {"emo": MER2024_EMOTIONS[i % 6], "val": ["", -10, 1.5, -2][i % 4]}
        for i in range(30)
    }
    test1 = {f"samplenew_{i:08d}": {"emo": MER2024_EMOTIONS[i % 6]} for i in range(6)}
    test2 = {f"samplenoise_{i:08d}": {"emo": "neutral"} for i in range(4)}
    return {"train_corpus": train, "test1_corpus": test1, "test2_corpus": test2}


def save_clips(root, clips, seed=0):
    """Features of the clips; returns modality -> clip -> [D]."""
    rng = np.random.default_rng(seed)
    features = {name: {} for name in MER2024_DIMS}
    for name, folder in mer2024.FEATURES.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for clip in clips:
            features[name][clip] = rng.normal(size=MER2024_DIMS[name]).astype(np.float32)
            np.save(root / folder / f"{clip}.npy", features[name][clip])
    return features


def make_mer2024(root):
    """40 clips in three parts; returns modality -> clip -> [D]."""
    members = mer2024_labels()
    features = save_clips(root, [clip for member in members.values() for clip in member])
    np.savez_compressed(root / "label-6way.npz", **members)
    return features


# ---- MC-EIU ----

MC_EIU = {"audio": "A/wav2vec", "visual": "V/ResNet-50", "text": "L/RoBERTa_base"}
MC_EIU_SETS = {"trn": "train", "val": "validation", "tst": "test"}
MC_EIU_UNLABELLED = "dia5_35_1"  # a turn of history


def make_mc_eiu(root):
    """Eight dialogues of 3 to 14 turns; returns (dialogue -> ids, utterance -> what it has)."""
    rng = np.random.default_rng(0)
    dialogues = {f"dia{d}_{d * 7}": 3 + (d * 5) % 12 for d in range(8)}
    ids = {name: [f"{name}_{turn}" for turn in range(n)] for name, n in dialogues.items()}
    told = {}
    for d, name in enumerate(ids):
        for turn, utt_id in enumerate(ids[name]):
            told[utt_id] = {
                "split": ("trn", "trn", "trn", "trn", "val", "val", "tst", "tst")[d],
                "emotion": int(rng.integers(7)),
                "intent": int(rng.integers(9)),
                "speaker": turn % 2,
            }
    write_h5(root / "Dia_Index/dia_index.h5", {k: np.array(v, "S") for k, v in ids.items()})
    write_h5(root / "Speaker/speaker.h5", {i: t["speaker"] for i, t in told.items()})
    for name, path in MC_EIU.items():
        dim = {"audio": 5, "visual": 4, "text": 6}[name]
        for t in told.values():
            t[name] = rng.normal(size=(rng.integers(1, 5), dim)).astype(np.float32)
        write_h5(root / f"{path}.h5", {i: t[name] for i, t in told.items()})
    labelled = {i: t for i, t in told.items() if i != MC_EIU_UNLABELLED}
    write_mc_eiu_targets(root / "target" / "1", labelled)
    return ids, told


def write_h5(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            file[name] = value


def write_mc_eiu_targets(folder, told, one_hot=True):
    folder.mkdir(parents=True, exist_ok=True)
    for part in MC_EIU_SETS:
        members = [i for i, t in told.items() if t["split"] == part]
        np.save(folder / f"{part}_int2name.npy", np.array(members))
        for task, count in (("emotion", 7), ("intent", 9)):
            labels = np.array([told[i][task] for i in members])
            np.save(
                folder / f"{part}_{task}_label.npy",
                np.eye(count, dtype=np.float32)[labels] if one_hot else labels,
            )


# ---- MMIN ----

MMIN_DIMS = {"A/comparE": 130, "V/denseface": 342, "L/bert_large": 1024}


def make_mmin(root, utterances=8, dims=MMIN_DIMS):
    """Five sessions of two speakers, ten folds; returns (file, utterance) -> [T, D] and classes."""
    rng = np.random.default_rng(0)
    ids = [
        f"Ses0{s}{g}_impro01_{g}{i:03d}"
        for s in range(1, 6)
        for g in "FM"
        for i in range(utterances)
    ]
    label = {utt_id: i % 4 for i, utt_id in enumerate(ids)}
    features = {}
    for path, dim in dims.items():
        for utt_id in ids:
            steps = rng.integers(1, 6)
            features[path, utt_id] = rng.normal(size=(steps, dim)).astype(np.float32)
        write_h5(root / f"{path}.h5", {i: features[path, i] for i in ids})
    with h5py.File(root / "A/comparE_mean_std.h5", "w") as file:
        for fold in range(1, 11):
            file[f"{fold}/mean"], file[f"{fold}/std"] = np.zeros(130), np.ones(130)
    for fold in range(1, 11):
        session, tested = (fold + 1) // 2, "FM"[fold % 2]
        parts = {"trn": [], "val": [], "tst": []}
        for utt_id in ids:
            held_out = utt_id[4] == str(session)
            part = ("tst" if utt_id[5] == tested else "val") if held_out else "trn"
            parts[part].append(utt_id)
        folder = root / "target" / str(fold)
        folder.mkdir(parents=True)
        for part, members in parts.items():
            np.save(folder / f"{part}_label.npy", np.eye(4)[[label[u] for u in members]])
            np.save(folder / f"{part}_int2name.npy", np.array(members, "S")[:, None])
    return features, label

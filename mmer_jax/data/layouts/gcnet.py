"""Importer of the layout of GCNet and of what was built on it (HARDY-MER among them).

    python -m mmer_jax.data.layouts.gcnet ROOT OUT

    ROOT/IEMOCAP_features_raw_4way.pkl        or _6way, CMUMOSI_..._2way, CMUMOSEI_..._2way
    ROOT/features/wav2vec-large-c-UTT/ID.npy  [D], or [T, D]; deberta-large-4-UTT likewise
    ROOT/features/manet_UTT/ID/*.npy          an array for each face, or ID.npy

The pickle is (videoIDs, videoLabels, videoSpeakers, videoSentences, trainVid, testVid) for IEMOCAP
and has valVid before testVid for CMU-MOSI and CMU-MOSEI. The first four map a video, here a
dialogue, to a list with an entry for each utterance, in order; the rest are sets of videos.

IEMOCAP shows both speakers: a face counts for the one whose letter, F or M, its file name has. Its
speakers are told apart by session (Ses01F), and `session` is a column, because the released code
cuts its folds by session. Elsewhere a speaker without a name is one for each video. The zeros that
the release has for an utterance without a face stay zeros.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax.data.arrays import BadArray
from mmer_jax.data.layouts import command, npy_files, release, safe_pickle
from mmer_jax.data.layouts.labels import check_ids, decimal
from mmer_jax.data.paths import check_names
from mmer_jax.errors import UserError, shorten

FEATURES = {
    "audio": "features/wav2vec-large-c-UTT",
    "text": "features/deberta-large-4-UTT",
    "visual": "features/manet_UTT",
}
# The labels' order: as DialogueRNN numbers six classes and AffectGPT, of GCNet's authors, four.
CLASSES = ("happy", "sad", "neutral", "angry", "excited", "frustrated")
PARTS = {6: ("train", "test"), 7: ("train", "validation", "test")}
TABLES = ("videoIDs", "videoLabels", "videoSpeakers")
IEMOCAP = re.compile(r"Ses(\d\d)[FM]_")


def import_gcnet(
    root: str | Path,
    out: str | Path,
    *,
    labels: str = "",
    folders: Mapping[str, str] = FEATURES,
    classes: Sequence[str] = CLASSES,
    missing: str = "error",
    pool: str = "mean",
) -> list[str]:
    """Convert a release folder `root` into the feature directory `out`; returns remarks.

    Args:
      labels: the label pickle in `root`; empty: the only one there.
      folders: modality -> its folder in `root`.
      classes: names of the classes, in the order of the labels.
      missing, pool: as of `release.write`.
    """
    root = Path(root)
    path = root / labels if labels else _only_pickle(root)
    columns = _read_labels(root, path, classes)
    speaker_of = dict(zip(columns["utt_id"], columns["speaker"], strict=True))

    def counts(utt_id: str, file: str) -> bool:
        speaker = speaker_of[utt_id]
        if not IEMOCAP.match(utt_id):
            return True
        letters = {letter for letter in "FM" if letter in file}
        if len(letters) != 1:
            raise BadArray(f"has {file}, whose name should have an F or an M for its speaker")
        return speaker[-1] in letters

    found = [
        npy_files.find(root, folder, name, columns["utt_id"], counts)
        for name, folder in folders.items()
    ]
    return release.write(Path(out), columns, found, missing=missing, pool=pool)


def _only_pickle(root: Path) -> Path:
    there = sorted(root.glob("*.pkl"))
    if len(there) != 1:
        raise UserError(
            f"{root} has {len(there)} label pickles ({shorten([p.name for p in there])}), expected "
            "one such as IEMOCAP_features_raw_4way.pkl; choose with --labels=FILE"
        )
    return there[0]


def _read_labels(root: Path, path: Path, classes: Sequence[str]) -> dict[str, list[str]]:
    """Columns utt_id, dialogue, turn, speaker, split, emotion or sentiment, and IEMOCAP's session.

    Dialogues in order of name, their utterances in order of turn.
    """
    loaded = safe_pickle.read_pickle(root, path)
    if type(loaded) not in (tuple, list) or len(loaded) not in PARTS:
        raise UserError(
            f"{path} holds a {type(loaded).__name__}, expected a tuple of 6 (IEMOCAP) or 7 members"
        )
    tables = [_table(path, name, table) for name, table in zip(TABLES, loaded, strict=False)]
    part_of = _parts(path, tables[0], PARTS[len(loaded)], loaded[4:])
    rows, labels = [], []
    for dialogue in sorted(tables[0]):
        own = [table.get(dialogue, []) for table in tables]
        if len({len(values) for values in own}) != 1:
            told = (f"{len(v)} in {name}" for name, v in zip(TABLES, own, strict=True))
            raise UserError(f"{path}: video '{dialogue}' has {', '.join(told)}")
        for turn, (utt_id, label, speaker) in enumerate(zip(*own, strict=True)):
            speaker = _speaker(dialogue, str(speaker))
            rows.append((str(utt_id), dialogue, str(turn), speaker, part_of.get(dialogue, "")))
            labels.append(label)
    check_ids([row[0] for row in rows], str(path))
    check_names(tables[0], str(path))
    names = ("utt_id", "dialogue", "turn", "speaker", "split")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    columns |= _sessions(path, columns)
    if "session" in columns or all(type(label) is int for label in labels):
        columns["emotion"] = _class_names(path, columns["utt_id"], labels, classes)
    else:
        columns["sentiment"] = _numbers(path, columns["utt_id"], labels)
    return columns


def _sessions(path: Path, columns: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The column `session`, when the dialogues are IEMOCAP's."""
    pairs = list(zip(columns["utt_id"], columns["dialogue"], strict=True))
    strange = [
        f"{utt_id} in {dialogue}"
        for utt_id, dialogue in pairs
        if IEMOCAP.match(utt_id) and not utt_id.startswith(f"{dialogue}_")
    ]
    if strange:
        raise UserError(
            f"{path}: {len(strange)} utterance(s) of IEMOCAP in another dialogue: "
            f"{shorten(strange)}"
        )
    matches = [IEMOCAP.match(dialogue) for _, dialogue in pairs]
    return {"session": [match[1] for match in matches if match]} if all(matches) else {}


def _table(path: Path, name: str, table: Any) -> dict[str, list[Any]]:
    """A member of the pickle: video -> what its utterances have."""
    if type(table) is not dict:
        raise UserError(f"{path}: {name} is a {type(table).__name__}, expected a dict of videos")
    found = {}
    for video, values in table.items():
        if isinstance(values, np.ndarray):
            values = values.tolist()
        if type(video) is not str or type(values) not in (list, tuple):
            raise UserError(f"{path}: {name} has for {video!r:.60} no list")
        found[video] = list(values)
    return found


def _parts(
    path: Path, ids: Mapping[str, Any], names: Sequence[str], members: Sequence[Any]
) -> dict[str, str]:
    """video -> train, validation or test."""
    part_of: dict[str, str] = {}
    for name, videos in zip(names, members, strict=True):
        if isinstance(videos, np.ndarray):
            videos = videos.tolist()
        if type(videos) not in (set, frozenset, list, tuple):
            raise UserError(f"{path}: the {name} videos are no set")
        wrong = [str(v) for v in videos if type(v) is not str or v not in ids or v in part_of]
        if wrong:
            raise UserError(
                f"{path}: {len(wrong)} {name} video(s) that are unknown or in two parts: "
                f"{shorten(sorted(wrong))}"
            )
        part_of.update(dict.fromkeys(videos, name))
    return part_of


def _speaker(dialogue: str, speaker: str) -> str:
    if IEMOCAP.match(dialogue):
        if speaker not in ("F", "M"):
            raise UserError(f"video '{dialogue}' has a speaker '{speaker}', expected F or M")
        return dialogue[:5] + speaker
    return speaker or dialogue


def _class_names(path: Path, ids: list[str], labels: list[Any], names: Sequence[str]) -> list[str]:
    bad = [
        f"{i} has {label!r:.40}"
        for i, label in zip(ids, labels, strict=True)
        if type(label) is not int or not 0 <= label < len(names)
    ]
    if bad:
        raise UserError(
            f"{path}: {len(bad)} label(s) that are none of 0 to {len(names) - 1} "
            f"({', '.join(names)}): {shorten(bad)}; name all classes with --classes=a,b,..."
        )
    return [names[n] for n in labels]


def _numbers(path: Path, ids: list[str], labels: list[Any]) -> list[str]:
    written = [decimal(label) for label in labels]
    bad = [
        f"{i} has {label!r:.40}"
        for i, label, text in zip(ids, labels, written, strict=True)
        if text is None
    ]
    if bad:
        raise UserError(f"{path}: {len(bad)} label(s) that are no number: {shorten(bad)}")
    return [text or "" for text in written]


def main(arguments: list[str] | None = None) -> int:
    parser = command.parser(
        "gcnet", "Convert a release in GCNet's layout into a feature directory."
    )
    parser.add_argument("--labels", default="", metavar="FILE", help="the label pickle in ROOT")
    for name, folder in FEATURES.items():
        parser.add_argument(f"--{name}", default=folder, metavar="FOLDER", help=f"default {folder}")
    parser.add_argument(
        "--classes",
        type=command.class_names,
        default=CLASSES,
        metavar="NAMES",
        help="in the order of the labels",
    )
    parser.add_argument(
        "--pool",
        choices=("mean", "none"),
        default="mean",
        help="mean over frames and faces, as released, or keep them as sequences",
    )
    args = parser.parse_args(arguments)

    def importer() -> list[str]:
        return import_gcnet(
            args.root,
            args.out,
            labels=args.labels,
            folders={name: getattr(args, name) for name in FEATURES},
            classes=args.classes,
            missing=args.missing,
            pool=args.pool,
        )

    return command.run(
        args,
        importer,
        "and --config.data.label=emotion --config.data.splits=session (IEMOCAP), or "
        "--config.data.label=sentiment --config.data.splits=split",
    )


if __name__ == "__main__":
    sys.exit(main())

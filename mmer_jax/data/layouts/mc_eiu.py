"""Importer of the MC-EIU release layout (emotion and intent in conversations).

    python -m mmer_jax.data.layouts.mc_eiu ROOT OUT

    ROOT/A/wav2vec.h5  ROOT/V/ResNet-50.h5  ROOT/L/RoBERTa_base.h5   a dataset [T, D] per utterance
    ROOT/Dia_Index/dia_index.h5     dialogue -> the ids of its utterances, in order
    ROOT/Speaker/speaker.h5         utterance -> 0 or 1, the speaker within its dialogue
    ROOT/target/{fold}/{trn,val,tst}_{emotion,intent}_label.npy   one-hot [n, C], or numbers [n]
    ROOT/target/{fold}/{trn,val,tst}_int2name.npy                 the n ids

writes the turns of all dialogues, in order: those without a label are history and have empty
cells. Speakers are numbered anew in each dialogue (DIALOGUE:0). The release gives its classes by
number alone; their names and order here are those of the same authors' MEIJU 2025 baseline.
"""

import contextlib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmer_jax.data import arrays
from mmer_jax.data.arrays import BadArray
from mmer_jax.data.layouts import command, hdf5, release
from mmer_jax.data.layouts.labels import check_ids, read_classes, read_ids
from mmer_jax.data.paths import check_names
from mmer_jax.errors import UserError, shorten

FOLDERS = {"audio": "A", "text": "L", "visual": "V"}
PARTS = {"trn": "train", "val": "validation", "tst": "test"}
EMOTIONS = ("happy", "surprise", "sad", "disgust", "anger", "fear", "neutral")
INTENTS = (
    *("questioning", "agreeing", "acknowledging", "sympathizing", "encouraging", "consoling"),
    *("suggesting", "wishing", "neutral"),
)


def import_mc_eiu(
    root: str | Path,
    out: str | Path,
    *,
    fold: str = "",
    files: Mapping[str, str] | None = None,
    emotions: Sequence[str] = EMOTIONS,
    intents: Sequence[str] = INTENTS,
    missing: str = "error",
) -> list[str]:
    """Convert a release folder `root` into the feature directory `out`; returns remarks.

    Args:
      fold: folder of `root`/target; empty: the only one.
      files: modality -> its .h5 file in `root`; one left out: the only one in its folder.
      emotions, intents: names of the classes, in the order of the labels.
      missing: as of `release.write`.
    """
    root = Path(root)
    columns = _read_dialogues(root)
    targets = _read_targets(root, _fold(root, fold), {"emotion": emotions, "intent": intents})
    strange = sorted(set(targets) - set(columns["utt_id"]))
    if strange:
        raise UserError(
            f"{root}/target has {len(strange)} utterance(s) that Dia_Index/dia_index.h5 does not "
            f"list: {shorten(strange)}"
        )
    for name in ("split", "emotion", "intent"):
        columns[name] = [targets.get(i, {}).get(name, "") for i in columns["utt_id"]]
    with contextlib.ExitStack() as stack:
        found = []
        for name, folder in FOLDERS.items():
            path = root / files[name] if files and files.get(name) else _only_file(root / folder)
            found.append(
                hdf5.find(stack.enter_context(hdf5.opened(root, path)), name, columns["utt_id"])
            )
        return release.write(Path(out), columns, found, missing=missing)


def _only_file(folder: Path) -> Path:
    there = sorted(folder.glob("*.h5"))
    if len(there) != 1:
        raise UserError(
            f"{folder} has {len(there)} .h5 files ({shorten([p.name for p in there]) or 'none'}), "
            "expected one; choose with --audio, --text, --visual"
        )
    return there[0]


def _read_dialogues(root: Path) -> dict[str, list[str]]:
    """Columns utt_id, dialogue, turn, speaker of all turns."""
    path = root / "Dia_Index" / "dia_index.h5"
    columns: dict[str, list[str]] = {name: [] for name in ("utt_id", "dialogue", "turn")}
    with hdf5.opened(root, path) as file:
        dialogues = hdf5.keys(file)
        check_names(dialogues, str(path))
        for dialogue in dialogues:
            try:
                ids = hdf5.text(file, dialogue)
            except BadArray as error:
                raise UserError(f"{path}: {dialogue} {error}") from None
            _check_order(path, dialogue, ids)
            columns["utt_id"] += ids
            columns["dialogue"] += [dialogue] * len(ids)
            columns["turn"] += map(str, range(len(ids)))
    check_ids(columns["utt_id"], str(path))
    speakers = _read_speakers(root, columns["utt_id"])
    columns["speaker"] = [
        f"{dialogue}:{speakers[i]}"
        for i, dialogue in zip(columns["utt_id"], columns["dialogue"], strict=True)
    ]
    return columns


def _check_order(path: Path, dialogue: str, ids: Sequence[str]) -> None:
    """The released code takes the number that ends an id (DIALOGUE_NUMBER) for its turn."""
    numbers = [re.search(r"_(\d+)$", i) for i in ids]
    turns = [int(number[1]) for number in numbers if number]
    if len(turns) == len(ids) and any(b <= a for a, b in zip(turns, turns[1:], strict=False)):
        raise UserError(f"{path}: the turns of {dialogue} are out of order: {shorten(ids)}")


def _read_speakers(root: Path, ids: Sequence[str]) -> dict[str, int]:
    path = root / "Speaker" / "speaker.h5"
    speakers, wrong = {}, []
    with hdf5.opened(root, path) as file:
        there = set(hdf5.keys(file))
        for utt_id in ids:
            try:
                if utt_id not in there:
                    raise BadArray("is not there")
                shape, _ = hdf5.check(file, utt_id, arrays.NUMBERS)
                if shape not in ((), (1,)):
                    raise BadArray(f"has shape {list(shape)}, expected one number")
                value = float(hdf5.read(file, utt_id).reshape(-1)[0])
                if value < 0 or value != int(value):
                    raise BadArray(f"is {value}, expected a number such as 0 or 1")
                speakers[utt_id] = int(value)
            except (BadArray, ValueError, OverflowError) as error:
                wrong.append(f"{utt_id} {error}")
    if wrong:
        raise UserError(f"{path}: {len(wrong)} without a speaker: {shorten(wrong)}")
    return speakers


def _fold(root: Path, fold: str) -> Path:
    target = root / "target"
    there = sorted(f.name for f in target.glob("*") if f.is_dir())
    if (fold and fold not in there) or (not fold and len(there) != 1):
        raise UserError(
            f"{target} has the folds: {', '.join(there) or 'none'}; choose one with --fold"
        )
    return target / (fold or there[0])


def _read_targets(
    root: Path, folder: Path, classes: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, str]]:
    """utterance -> its split, emotion and intent."""
    targets: dict[str, dict[str, str]] = {}
    for part, split in PARTS.items():
        path = folder / f"{part}_int2name.npy"
        ids = read_ids(root, path)
        twice = sorted(set(ids) & set(targets))
        if twice:
            raise UserError(f"{path}: {len(twice)} utterance(s) of another set: {shorten(twice)}")
        columns = {
            task: read_classes(root, folder / f"{part}_{task}_label.npy", ids, names)
            for task, names in classes.items()
        }
        for row, utt_id in enumerate(ids):
            targets[utt_id] = {"split": split} | {task: x[row] for task, x in columns.items()}
    return targets


def main(arguments: list[str] | None = None) -> int:
    parser = command.parser("mc_eiu", "Convert the release of MC-EIU into a feature directory.")
    parser.add_argument("--fold", default="", help="folder of ROOT/target")
    for name, folder in FOLDERS.items():
        parser.add_argument(
            f"--{name}", default="", metavar="FILE", help=f"such as {folder}/NAME.h5"
        )
    for task, names in (("emotions", EMOTIONS), ("intents", INTENTS)):
        parser.add_argument(
            f"--{task}",
            type=command.class_names,
            default=names,
            metavar="NAMES",
            help=f"in the order of the labels; default {','.join(names)}",
        )
    args = parser.parse_args(arguments)

    def importer() -> list[str]:
        return import_mc_eiu(
            args.root,
            args.out,
            fold=args.fold,
            files={name: getattr(args, name) for name in FOLDERS},
            emotions=args.emotions,
            intents=args.intents,
            missing=args.missing,
        )

    return command.run(args, importer, "--config=configs/mc_eiu_english.py (or mc_eiu_mandarin.py)")


if __name__ == "__main__":
    sys.exit(main())

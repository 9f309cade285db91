"""Importer of the MMIN / IF-MMIN release layout (METHODS: A, V, L features in HDF5, target/*).

    python -m mmer_jax.data.layouts.mmin ROOT OUT

    ROOT/A/comparE.h5  ROOT/V/denseface.h5  ROOT/L/bert_large.h5   one dataset [T, D] per utterance
    ROOT/target/{fold}/{trn,val,tst}_label.npy                     one-hot [n, C]
    ROOT/target/{fold}/{trn,val,tst}_int2name.npy                  ids, bytes, in a column

writes a feature directory with modalities audio, text, visual. Fold, session and speaker come from
the target files: an utterance that fold k tests gets the session and speaker of that fold, so that
`data.splits=session_speaker` cuts exactly the folds of the release. The release's per-fold audio
statistics (comparE_mean_std.h5) are not needed: normalisation is computed from each fold's
training rows.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from mmer_jax import cli
from mmer_jax.data import feature_dir
from mmer_jax.data.corpus import RawModality
from mmer_jax.errors import UserError, shorten

FILES = {"audio": "A/comparE.h5", "text": "L/bert_large.h5", "visual": "V/denseface.h5"}
CLASSES = ("angry", "happy", "neutral", "sad")


def import_mmin(root: str | Path, out: str | Path, classes: Sequence[str] = CLASSES) -> None:
    """Convert a release folder `root` into the feature directory `out`."""
    root = Path(root)
    columns = _read_targets(root / "target", classes)
    raw = {name: _read_sequences(root / path, columns["utt_id"]) for name, path in FILES.items()}
    feature_dir.write_directory(out, columns, raw)


def _read_targets(target: Path, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns utt_id, session, speaker, emotion4 from the label files of all folds."""
    folders = [f for f in target.glob("*") if f.is_dir() and f.name.isdigit()]
    if not folders:
        raise UserError(f"{target} has no numbered fold folders")
    label_of: dict[str, int] = {}
    tested_in: dict[str, int] = {}
    held_out: dict[int, frozenset[str]] = {}
    trained: dict[int, frozenset[str]] = {}
    for folder in sorted(folders, key=lambda f: int(f.name)):
        fold = int(folder.name)
        parts = {part: _read_part(folder, part, len(classes)) for part in ("trn", "val", "tst")}
        for part, (ids, labels) in parts.items():
            for utt_id, label in zip(ids, labels, strict=True):
                if label_of.setdefault(utt_id, int(label)) != label:
                    raise UserError(
                        f"{folder}/{part}_label.npy gives '{utt_id}' the class {label}, another "
                        f"fold gave it {label_of[utt_id]}"
                    )
        for utt_id in parts["tst"][0]:
            if utt_id in tested_in:
                raise UserError(
                    f"'{utt_id}' is tested in folds {tested_in[utt_id]} and {fold} of {target}"
                )
            tested_in[utt_id] = fold
        held_out[fold] = frozenset(parts["val"][0]) | frozenset(parts["tst"][0])
        trained[fold] = frozenset(parts["trn"][0])
    untested = sorted(set(label_of) - set(tested_in))
    if untested:
        raise UserError(
            f"{target}: {len(untested)} utterances are in no test part: {shorten(untested)}"
        )
    for fold, held in held_out.items():
        pair = [other for other in held_out if held_out[other] == held]
        if len(pair) != 2 or trained[fold] != set(label_of) - held:
            raise UserError(
                f"{target}/{fold} is not a fold of MMIN's scheme (train on all but one session; "
                "its two speakers validate and test, and swap in another fold)"
            )
    sessions = {held: i + 1 for i, held in enumerate(dict.fromkeys(held_out.values()))}
    ids = sorted(label_of)
    return {
        "utt_id": np.array(ids),
        "session": np.array([f"{sessions[held_out[tested_in[i]]]:02d}" for i in ids]),
        "speaker": np.array([f"tst{tested_in[i]:02d}" for i in ids]),
        "emotion4": np.array([classes[label_of[i]] for i in ids]),
    }


def _read_part(folder: Path, part: str, n_classes: int) -> tuple[list[str], np.ndarray]:
    label_file, name_file = folder / f"{part}_label.npy", folder / f"{part}_int2name.npy"
    try:
        one_hot = np.load(label_file, allow_pickle=False)
        names = np.load(name_file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: {part} labels cannot be read: {error}") from None
    ids = [n.decode() if isinstance(n, bytes) else str(n) for n in names.reshape(-1)]
    if one_hot.ndim != 2 or one_hot.shape[1] != n_classes:
        raise UserError(f"{label_file} has shape {one_hot.shape}, expected [n, {n_classes}]")
    if len(one_hot) != len(ids):
        raise UserError(f"{label_file} has {len(one_hot)} rows, {name_file} has {len(ids)}")
    return ids, one_hot.argmax(axis=1)


def _read_sequences(path: Path, ids: np.ndarray) -> RawModality:
    if not path.exists():
        raise UserError(f"feature file {path} does not exist")
    try:
        with h5py.File(path, "r") as file:
            absent = [utt_id for utt_id in ids if utt_id not in file]
            if absent:
                raise UserError(f"{path} lacks {len(absent)} utterance(s): {shorten(absent)}")
            arrays = [np.asarray(file[utt_id][()], np.float32) for utt_id in ids]
    except OSError as error:
        raise UserError(f"{path} is not an HDF5 file: {error}") from None
    arrays = [a[None] if a.ndim == 1 else a for a in arrays]
    bad = [
        i
        for i, a in zip(ids, arrays, strict=True)
        if a.ndim != 2 or a.shape[1:] != arrays[0].shape[1:]
    ]
    if bad:
        raise UserError(
            f"{path}: expected [T, {arrays[0].shape[-1]}], other shapes at {shorten(bad)}"
        )
    lengths = np.array([len(a) for a in arrays])
    return feature_dir.check_modality(np.concatenate(arrays), lengths, ids, str(path))


def main() -> int:
    parser = cli.Parser(
        prog="python -m mmer_jax.data.layouts.mmin",
        description="Convert a release of MMIN or IF-MMIN into a feature directory.",
    )
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()

    def command() -> None:
        import_mmin(args.root, args.out)
        print(
            f"wrote {args.out}; train with --config.data.root={args.out} "
            "--config.data.label=emotion4 --config.data.splits=session_speaker"
        )

    return cli.exit_status(command)


if __name__ == "__main__":
    sys.exit(main())

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

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from mmer_jax.data.layouts import command, hdf5, release
from mmer_jax.data.layouts.labels import read_classes, read_ids
from mmer_jax.errors import UserError, shorten

FILES = {"audio": "A/comparE.h5", "text": "L/bert_large.h5", "visual": "V/denseface.h5"}
CLASSES = ("angry", "happy", "neutral", "sad")


def import_mmin(
    root: str | Path, out: str | Path, classes: Sequence[str] = CLASSES, missing: str = "error"
) -> list[str]:
    """Convert a release folder `root` into the feature directory `out`; returns remarks.

    Args:
      classes: names of the classes, in the order of the labels.
      missing: as of `release.write`.
    """
    root = Path(root)
    columns = _read_targets(root, classes)
    with contextlib.ExitStack() as stack:
        found = []
        for name, path in FILES.items():
            file = stack.enter_context(hdf5.opened(root, root / path))
            found.append(hdf5.find(file, name, columns["utt_id"]))
        return release.write(Path(out), columns, found, missing=missing)


def _read_targets(root: Path, classes: Sequence[str]) -> dict[str, list[str]]:
    """Columns utt_id, session, speaker, emotion4 from the label files of all folds."""
    target = root / "target"
    folders = [f for f in target.glob("*") if f.is_dir() and f.name.isdecimal()]
    if not folders:
        raise UserError(f"{target} has no numbered fold folders")
    label_of: dict[str, str] = {}
    tested_in: dict[str, int] = {}
    held_out: dict[int, frozenset[str]] = {}
    trained: dict[int, frozenset[str]] = {}
    for folder in sorted(folders, key=lambda f: int(f.name)):
        fold = int(folder.name)
        parts = {}
        for part in ("trn", "val", "tst"):
            ids = parts[part] = read_ids(root, folder / f"{part}_int2name.npy")
            labels = read_classes(root, folder / f"{part}_label.npy", ids, classes)
            for utt_id, label in zip(ids, labels, strict=True):
                if label_of.setdefault(utt_id, label) != label:
                    raise UserError(
                        f"{folder}/{part}_label.npy gives '{utt_id}' the class {label}, another "
                        f"fold gave it {label_of[utt_id]}"
                    )
        for utt_id in parts["tst"]:
            if utt_id in tested_in:
                raise UserError(
                    f"'{utt_id}' is tested in folds {tested_in[utt_id]} and {fold} of {target}"
                )
            tested_in[utt_id] = fold
        held_out[fold] = frozenset(parts["val"]) | frozenset(parts["tst"])
        trained[fold] = frozenset(parts["trn"])
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
        "utt_id": ids,
        "session": [f"{sessions[held_out[tested_in[i]]]:02d}" for i in ids],
        "speaker": [f"tst{tested_in[i]:02d}" for i in ids],
        "emotion4": [label_of[i] for i in ids],
    }


def main(arguments: list[str] | None = None) -> int:
    parser = command.parser(
        "mmin", "Convert a release of MMIN or IF-MMIN into a feature directory."
    )
    args = parser.parse_args(arguments)
    return command.run(
        args,
        lambda: import_mmin(args.root, args.out, missing=args.missing),
        "--config.data.label=emotion4 --config.data.splits=session_speaker",
    )


if __name__ == "__main__":
    sys.exit(main())

"""Importer of the layout of MER2023 and MER2024, as MERTools prepares it.

    python -m mmer_jax.data.layouts.mer2024 ROOT OUT

    ROOT/label-6way.npz                             train_corpus, test1_corpus, test2_corpus, ...
    ROOT/features/chinese-hubert-large-UTT/ID.npy   [D] for each clip, or [T, D]
    ROOT/features/Baichuan-13B-Base-UTT/ID.npy  ROOT/features/clip-vit-large-patch14-UTT/ID.npy

A member of the label file is a pickled dict, clip -> {'emo': name, 'val': number}; it is read by
`safe_pickle`. Clips of train_corpus are `train`, the others `test`, and `part` has the member's
name. Challenge data give every test clip the class neutral, for want of its label: where a whole
part has a single class, its labels are left out. MER2024 has no dialogues and names no speakers:
every clip is a dialogue of its own.

`--unlabelled` takes in clips that the label file does not list, with empty labels; the label file
may then be missing. Features of one clip at a time are held in memory.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax.data import arrays
from mmer_jax.data.layouts import command, npy_files, release, safe_pickle
from mmer_jax.data.layouts.labels import check_ids, decimal
from mmer_jax.data.paths import file_inside
from mmer_jax.errors import UserError, shorten

LABELS = "label-6way.npz"
FEATURES = {
    "audio": "features/chinese-hubert-large-UTT",
    "text": "features/Baichuan-13B-Base-UTT",
    "visual": "features/clip-vit-large-patch14-UTT",
}
NO_VALENCE = -10  # what the label files write
SUFFIX = "_corpus"


def import_mer2024(
    root: str | Path,
    out: str | Path,
    *,
    folders: Mapping[str, str] = FEATURES,
    unlabelled: bool = False,
    missing: str = "error",
    pool: str = "none",
) -> list[str]:
    """Convert a release folder `root` into the feature directory `out`; returns remarks.

    Args:
      folders: modality -> its folder in `root`.
      unlabelled: also import clips without a label.
      missing, pool: as of `release.write`.
    """
    root = Path(root)
    path = root / LABELS
    parts: dict[str, dict[str, dict]] = {}
    remarks: list[str] = []
    if path.exists() or path.is_symlink() or not unlabelled:
        parts, remarks = _without_placeholders(_read_labels(root, path))
    if unlabelled:
        listed = {clip for clips in parts.values() for clip in clips}
        there = set().union(*(npy_files.names(root, folder) for folder in folders.values()))
        parts[""] = {clip: {} for clip in sorted(there - listed)}
    columns = _columns(parts, str(path))
    found = [
        npy_files.find(root, folder, name, columns["utt_id"]) for name, folder in folders.items()
    ]
    return remarks + release.write(Path(out), columns, found, missing=missing, pool=pool)


def _read_labels(root: Path, path: Path) -> dict[str, dict[str, dict]]:
    """part -> clip -> its labels."""
    if not path.exists() and not path.is_symlink():
        raise UserError(f"{path} does not exist; --unlabelled imports clips without labels")
    parts = {}
    try:
        with arrays.open_npz(file_inside(root, path)) as archive:
            for name in archive.names:
                header, data = archive.read_objects(name, safe_pickle.LARGEST)
                if not name.endswith(SUFFIX) or header.shape != ():
                    raise arrays.BadArray(
                        f"has '{name}' of shape {list(header.shape)}, expected only pickled dicts "
                        "such as train_corpus and test1_corpus"
                    )
                loaded = safe_pickle.loads(data, f"{path}, {name}")
                parts[name.removesuffix(SUFFIX)] = _clips(loaded, f"{path}, {name}")
    except arrays.BadArray as error:
        raise UserError(f"{path} {error}") from None
    if "train" not in parts:
        raise UserError(f"{path} has no train_corpus, only: {', '.join(parts) or 'nothing'}")
    return parts


def _clips(loaded: Any, source: str) -> dict[str, dict]:
    clips = loaded.item() if isinstance(loaded, np.ndarray) and loaded.shape == () else loaded
    if type(clips) is not dict:
        raise UserError(f"{source} is a {type(clips).__name__}, expected a dict of clips")
    wrong = [
        f"{str(clip):.60}"
        for clip, told in clips.items()
        if type(clip) is not str or type(told) is not dict or type(told.get("emo")) is not str
    ]
    if wrong:
        raise UserError(
            f"{source}: {len(wrong)} clip(s) without {{'emo': name}}: {shorten(sorted(wrong))}"
        )
    return clips


def _without_placeholders(
    parts: dict[str, dict[str, dict]],
) -> tuple[dict[str, dict[str, dict]], list[str]]:
    """The parts without labels that are there for want of one, and what was left out."""
    kept, remarks = {}, []
    for part, clips in parts.items():
        emotions = sorted({told["emo"] for told in clips.values()})
        if part != "train" and len(clips) > 1 and len(emotions) == 1:
            remarks.append(f"all {len(clips)} clips of {part} are '{emotions[0]}': no labels")
            clips = {clip: {} for clip in clips}
        kept[part] = clips
    return kept, remarks


def _columns(parts: Mapping[str, Mapping[str, Mapping]], source: str) -> dict[str, list[str]]:
    rows = [
        (clip, clip, "0", "", _split(part), part, told.get("emo", ""), told.get("val", ""))
        for part, clips in parts.items()
        for clip, told in clips.items()
    ]
    check_ids([row[0] for row in rows], source)
    names = ("utt_id", "dialogue", "turn", "speaker", "split", "part", "emotion", "valence")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    valence = columns.pop("valence")
    written = ["" if value in ("", None, NO_VALENCE) else decimal(value) for value in valence]
    bad = [
        f"{clip} has {value!r:.40}"
        for clip, value, text in zip(columns["utt_id"], valence, written, strict=True)
        if text is None
    ]
    if bad:
        raise UserError(f"{source}: {len(bad)} valence(s) that are no number: {shorten(bad)}")
    if any(written):
        columns["valence"] = written
    return columns


def _split(part: str) -> str:
    return part if part in ("", "train") else "test"


def main(arguments: list[str] | None = None) -> int:
    parser = command.parser(
        "mer2024", "Convert a release in the layout of MER2023 or MER2024 into a feature directory."
    )
    for name, folder in FEATURES.items():
        parser.add_argument(f"--{name}", default=folder, metavar="FOLDER", help=f"default {folder}")
    parser.add_argument(
        "--unlabelled", action="store_true", help="also clips that the label file does not list"
    )
    parser.add_argument(
        "--pool", choices=("mean", "none"), default="none", help="mean over an utterance's steps"
    )
    args = parser.parse_args(arguments)

    def importer() -> list[str]:
        return import_mer2024(
            args.root,
            args.out,
            folders={name: getattr(args, name) for name in FEATURES},
            unlabelled=args.unlabelled,
            missing=args.missing,
            pool=args.pool,
        )

    return command.run(
        args,
        importer,
        "--config.data.label=emotion --config.data.splits=kfold --config.data.kfold_by=dialogue",
    )


if __name__ == "__main__":
    sys.exit(main())

"""python -m mmer_jax.predict --workdir=W --from=FEATURE_DIR --out=predictions.csv

Predicts the utterances of a feature directory, of which any may lack any modality.
"""

import argparse
import collections
import csv
import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from mmer_jax import cli, mirror
from mmer_jax.bench import prediction
from mmer_jax.data import feature_dir
from mmer_jax.data.corpus import RawModality, Task
from mmer_jax.data.units import Grouping, group_turns
from mmer_jax.errors import UserError
from mmer_jax.predictor import Predictions, Predictor, load

ABOUT = """
Predict the utterances of a feature directory with the models of a workdir.

utterances.csv needs the column utt_id alone. A modality is absent for an utterance if its .npz
file is missing, if the file has an array utt_id that does not name the utterance, or if a number
of it is not finite. predictions.csv has utt_id, the modalities used, the predicted class and every
class's probability (or the value of a real-valued label); they are empty for an utterance without
any usable modality.

A method that reads dialogues takes them from the columns dialogue and turn (EI² from speaker as
well); without these, and where a dialogue's name is empty, every utterance is read as a dialogue of
its own.

The prediction is the mean over all folds and seeds of the workdir, or those of --folds and --seeds.
Of utterances that the run was trained on it says nothing about quality: most models of an ensemble
over folds have learnt them. Test scores are in results.csv.
"""


Columns = dict[str, np.ndarray]


def read_features(root: Path, names: Sequence[str]) -> tuple[Columns, dict[str, RawModality]]:
    """(columns of utterances.csv, the modalities that have a file) of a feature directory."""
    if not root.is_dir():
        raise UserError(f"feature directory {root} does not exist; set --from")
    columns = feature_dir.read_utterances(root / "utterances.csv")
    files = [name for name in names if (root / f"{name}.npz").exists()]
    if not files:
        found = sorted(path.name for path in root.glob("*.npz"))
        raise UserError(
            f"{root} has no file of a modality of this model, none of "
            f"{', '.join(f'{name}.npz' for name in names)}; it has: "
            f"{', '.join(found) or 'no .npz file'}"
        )
    ids = columns["utt_id"]
    return columns, {name: feature_dir.read_modality(root, name, ids) for name in files}


def dialogues_of(columns: Columns) -> Grouping | None:
    """The dialogues of utterances.csv; None if it has none."""
    if "dialogue" not in columns or "turn" not in columns:
        return None
    alone = columns["dialogue"] == ""
    # No name of a dialogue holds a line break: csv's utt_id may, but each is there once.
    names = np.where(alone, np.char.add("\n", columns["utt_id"]), columns["dialogue"])
    return group_turns(names, np.where(alone, "0", columns["turn"]), columns["utt_id"])


def write_predictions(path: Path, ids: np.ndarray, found: Predictions) -> None:
    """predictions.csv: utt_id, used, then prediction and p:CLASS per class, or value.

    Of several tasks every name of a column begins with its task's, as "emotion/prediction".
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [column for task in found.tasks for column in _columns(found, task)]
    writer.writerow(["utt_id", "used", *(name for name, _ in columns)])
    cells = zip(*(values for _, values in columns), strict=True)
    for name, used, row in zip(ids, found.used_names, cells, strict=True):
        writer.writerow([name, used, *row])
    cli.write_out(path, text.getvalue())


def _columns(found: Predictions, task: Task) -> list[tuple[str, list[str]]]:
    """(head, cells) of one task; its name stands in front where there are several."""
    prefix = f"{task.name}/" if len(found.tasks) > 1 else ""
    mine, used = found.of(task.name), found.used.any(axis=1)
    heads = [f"p:{name}" for name in task.classes] or ["value"]
    numbers = [
        [f"{x:.6f}" if there else "" for x, there in zip(column, used, strict=True)]
        for column in mine.outputs.T
    ]
    labels = [("prediction", mine.labels)] if task.classes else []
    columns = [*labels, *zip(heads, numbers, strict=True)]
    return [(prefix + head, cells) for head, cells in columns]


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = cli.Parser(
        prog="python -m mmer_jax.predict",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_ensemble_flags(parser)
    parser.add_argument(
        "--from", dest="root", metavar="DIR", help="feature directory; a folder or gs://..."
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="predictions.csv")
    parser.add_argument("--batch_size", type=int, default=256, metavar="N")
    parser.add_argument(
        "--benchmark", action="store_true", help="instead: time predictions of made-up features"
    )
    given = parser.parse_args(arguments)
    if not given.benchmark and not (given.root and given.out):
        parser.error("--from and --out are needed (or --benchmark)")

    def command() -> None:
        cli.use_compilation_cache(given.compilation_cache)
        console = Console(width=None if sys.stdout.isatty() else 120)
        model = load(given.workdir, folds=given.folds, seeds=given.seeds)
        if given.benchmark:
            prediction.show(console, prediction.measure(model), len(model.members))
        else:
            root = mirror.features(given.root, [m.name for m in model.modalities])
            _predict(model, root, given.out.expanduser(), given, console)

    return cli.exit_status(command)


def add_ensemble_flags(parser: cli.Parser) -> None:
    """--workdir, --folds, --seeds: which models; and where compiled programs are kept."""

    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    parser.add_argument("--workdir", required=True, metavar="DIR", help="of mmer_jax.main")
    parser.add_argument("--folds", type=numbers, metavar="0,1", help="default: all")
    parser.add_argument("--seeds", type=numbers, metavar="0,1", help="default: all")
    parser.add_argument(
        "--compilation_cache", default=cli.CACHE, metavar="DIR", help="empty: none is kept"
    )


def _predict(model: Predictor, root: Path, out: Path, given, console: Console) -> None:
    columns, raw = read_features(root, [m.name for m in model.modalities])
    grouping = dialogues_of(columns) if model.reads_dialogues else None
    speakers = None if grouping is None else columns.get("speaker")
    if model.reads_speakers and grouping is not None and speakers is None:
        raise UserError(
            f"{root}/utterances.csv has dialogues and no column 'speaker', which this model reads"
        )
    started = time.monotonic()
    ids = columns["utt_id"]
    found = model.predict_raw(raw, grouping, speakers, ids=ids, batch_size=given.batch_size)
    seconds = time.monotonic() - started
    write_predictions(out, ids, found)
    table = Table(title=f"{len(ids)} utterances", title_justify="left")
    table.add_column("modalities used")
    table.add_column("utterances", justify="right")
    for name, count in collections.Counter(found.used_names).most_common():
        table.add_row(name or "none: no prediction", str(count))
    console.print(table)
    if model.reads_dialogues:
        read = "no column dialogue or turn: every utterance alone"
        if grouping is not None:
            read = f"{len(grouping.table)} dialogue(s), the longest of {grouping.length} turn(s)"
        console.print(read, highlight=False, markup=False)
    folds, seeds = ({getattr(m, k) for m in model.members} for k in ("fold", "seed"))
    console.print(
        f"mean of {len(model.members)} model(s) ({len(folds)} fold(s), {len(seeds)} seed(s)); "
        f"{seconds:.1f} s with compilation on {jax.devices()[0].device_kind}\npredictions  {out}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    sys.exit(main())

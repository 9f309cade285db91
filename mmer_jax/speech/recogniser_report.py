"""What a trained recogniser is worth, into its workdir: scores.csv, scaling.json and a figure."""

import csv
import io
import shutil
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from mmer_jax.data import feature_dir
from mmer_jax.records import write_atomically
from mmer_jax.report.figures import drawing
from mmer_jax.speech import corpora, intensity
from mmer_jax.speech.annotate import COLUMNS, annotate
from mmer_jax.speech.dataset import SpeechData
from mmer_jax.speech.default_corpus import speakers
from mmer_jax.speech.evaluation import auc, recognition, utterance_means
from mmer_jax.speech.figures import goodness_figure
from mmer_jax.speech.mispronunciation import consonants
from mmer_jax.speech.recogniser import load_recogniser

SCORES = "scores.csv"
HEADER = ("seed", "split", "metric", "value", "n")


def write_report(workdir: Path, config, data: SpeechData, folder: Path, console: Console) -> None:
    """Score each seed on the test split, once; later runs read what stands there.

    Args:
      data: the corpus.
      folder: its feature directory.
    """
    path = workdir / SCORES
    if not path.exists():
        rows: list[tuple] = []
        for seed in range(config.trials.seeds):
            rows += _score_seed(workdir, config, data, folder, seed)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([HEADER, *rows])
        write_atomically(path, text.getvalue())
    console.print(_table(path))
    for name in (SCORES, "scaling.json", "report/goodness.png"):
        console.print(f"{workdir / name}", highlight=False, markup=False, soft_wrap=True)


def _score_seed(workdir: Path, config, data: SpeechData, folder: Path, seed: int) -> list[tuple]:
    recogniser = load_recogniser(workdir, seed)
    rows: list[tuple] = []
    for split in ("dev", "test"):
        chosen = data.rows(split, accent="")
        if len(chosen):
            scores = recognition(recogniser, data, chosen)._asdict()
            rows += [(seed, split, name, f"{v:.6g}", len(chosen)) for name, v in scores.items()]
    annotated = annotate(folder, recogniser, corpora.cache_of(config), config)
    columns, raw = feature_dir.read_raw(annotated, ("phones", "prosody"))
    table, lengths = raw["phones"].features, np.asarray(raw["phones"].lengths)
    values = dict(zip(COLUMNS, table.T, strict=True))
    means = utterance_means(values["goodness"], values["word"], lengths)
    l1 = columns["accent"] == ""
    for split in ("dev", "test"):
        mine = columns["split"] == split
        if (mine & l1).any() and (mine & ~l1).any():
            separation = auc(means[mine & ~l1], means[mine & l1])
            rows.append((seed, split, "auc_l1_l2", f"{separation:.6g}", int(mine.sum())))
        if not config.data.corpus:
            rows += _consonants(seed, split, columns, values, lengths)
    shutil.copy(annotated / "scaling.json", intensity.place(workdir, seed))
    if seed == 0:
        shown = "test" if (columns["split"] == "test").any() else "dev"
        with drawing.look():
            figure = goodness_figure(columns, values, means, lengths, shown)
            drawing.save(figure, workdir / "report", "goodness")
    return rows


def _consonants(seed: int, split: str, columns, values, lengths) -> list[tuple]:
    """How well goodness tells mistaken consonants from right ones, in the default corpus."""
    who = {speaker.name: speaker for speaker in speakers()}
    wrong, right = consonants(columns, values["goodness"], values["word"], lengths, who, split)
    found = auc(wrong, right)
    return [(seed, split, "auc_consonants", f"{found:.6g}", len(wrong) + len(right))]


def _table(path: Path) -> Table:
    """Means over the seeds."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    table = Table("metric", "dev", "test", title="L1 recogniser (dev chose the epoch)")
    for metric in dict.fromkeys(line["metric"] for line in lines):
        cells = []
        for split in ("dev", "test"):
            found = [
                float(x["value"]) for x in lines if (x["metric"], x["split"]) == (metric, split)
            ]
            cells.append(f"{np.mean(found):.4f}" if found else "")
        table.add_row(metric, *cells)
    return table

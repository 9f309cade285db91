"""python -m mmer_jax.bench.streaming [--clips=N]: training from records against a resident corpus.

Without `--clips`: seconds of an epoch of IF-MMIN's second stage at the original sizes, its features
on the device or streamed from TFRecords whose files are cached, in one process and by turns. With
`--clips=115000`: the memory of this process while it streams as many clips as MER2024 has; they are
made up and written by another process. Everything is written to a temporary folder and deleted.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from mmer_jax import mesh as mesh_lib
from mmer_jax.bench.setting import BATCH, Student, original_corpus, units_of
from mmer_jax.data import feature_dir, pipeline
from mmer_jax.data.corpus import Corpus
from mmer_jax.data.feed import Feed
from mmer_jax.data.units import Units
from mmer_jax.trials import epoch_order, stack_tables

STEPS = 35  # of an epoch, as in a fold of IEMOCAP: 4,480 utterances
MODALITIES = ("audio", "text", "visual")
CLIP_DIM = 1024  # of each modality of a clip, float32
CLIPS_AT_ONCE = 4096
Figures = dict[str, float]


def step_rates(folder: Path, turns: int, shuffle_buffer: int) -> Figures:
    """Seconds of an epoch, resident and streamed, and of its reading alone; medians over turns."""
    write_original(folder / "features", STEPS * BATCH)
    corpus = read(folder)
    student = Student(corpus, 1)
    stream = Feed(corpus, student.mesh, placement="stream", memory_budget=2**33)
    rows = units_of(np.arange(len(corpus)))
    times: dict[str, list[float]] = {"device": [], "stream": [], "reading": []}
    for epoch in range(turns + 1):
        order = epoch_order(rows, BATCH, seed=0, epoch=epoch, shuffle_buffer=shuffle_buffer)
        units = stack_tables([order])
        found = (
            student.epoch(units=units),
            student.epoch(stream, units),
            read_through(stream, units),
        )
        if epoch:  # the first compiles, and checks the records
            for name, seconds in zip(times, found, strict=True):
                times[name].append(seconds)
    figures = {f"{name}_epoch_s": statistics.median(found) for name, found in times.items()}
    figures["fraction_of_device_rate"] = figures["device_epoch_s"] / figures["stream_epoch_s"]
    figures["epoch_mib"] = len(corpus) * corpus.row_bytes / 2**20
    return figures


def clip_memory(folder: Path, clips: int, budget: float, shuffle_buffer: int) -> Figures:
    """MiB of this process before and at the peak of an epoch over `clips` clips, read alone."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as other:
        built = other.submit(build_clips, folder, clips).result()
    corpus = read(folder)
    feed = Feed(corpus, mesh_lib.make_mesh(1, BATCH), placement="stream", memory_budget=budget)
    rows = units_of(np.arange(clips))
    before = peak_mib()
    for epoch in range(2):  # the first checks the records
        order = epoch_order(rows, BATCH, seed=0, epoch=epoch, shuffle_buffer=shuffle_buffer)
        seconds = read_through(feed, stack_tables([order]))
    return {
        "features_mib": clips * corpus.row_bytes / 2**20,
        "half_budget_mib": budget / 2 / 2**20,
        "building_peak_mib": built,
        "before_mib": before,
        "peak_mib": peak_mib(),
        "reading_epoch_s": seconds,
    }


def read_through(feed: Feed, units: Units) -> float:
    """Seconds to bring every piece of `units` to the device."""
    start = time.perf_counter()
    for piece in feed.pieces(units):
        jax.block_until_ready(piece)
    return time.perf_counter() - start


def write_original(root: Path, count: int) -> None:
    """A feature directory of noise at the original sizes."""
    corpus = original_corpus(count)
    feature_dir.write_directory(root, corpus.columns, corpus.source.raw)  # type: ignore[attr-defined]


def build_clips(folder: Path, clips: int) -> float:
    """Write a feature directory of `clips` clips and build its records; peak MiB of the process."""
    root = folder / "features"
    ids = np.array([f"clip{i:07d}" for i in range(clips)])
    emotion = np.array(["angry", "happy", "neutral", "sad"])[np.arange(clips) % 4]
    feature_dir.write_directory(root, {"utt_id": ids, "emotion": emotion}, {})
    rng = np.random.default_rng(0)
    for name in MODALITIES:
        pieces = (
            rng.standard_normal((min(CLIPS_AT_ONCE, clips - start), CLIP_DIM), np.float32)
            for start in range(0, clips, CLIPS_AT_ONCE)
        )
        shape = (clips, CLIP_DIM)
        feature_dir.write_modality(root / f"{name}.npz", pieces, shape, np.dtype("f4"), None)
    read(folder)
    return peak_mib()


def read(folder: Path) -> Corpus:
    """The corpus of folder/features; its records are built where they are not yet."""
    return pipeline.read_records(
        folder / "features", MODALITIES, folder / "records", label="emotion"
    )


def peak_mib() -> float:
    """The most memory that this process has had so far."""
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=0, help="measure the memory of so many clips")
    parser.add_argument("--turns", type=int, default=5, help="medians are over so many")
    parser.add_argument("--shuffle_buffer", type=int, default=0, help="data.shuffle_buffer")
    parser.add_argument("--budget_gb", type=float, default=0.5, help="of --clips: on the device")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mmer_bench_", dir=args.folder) as name:
        if args.clips:
            budget = args.budget_gb * 2**30
            figures = clip_memory(Path(name), args.clips, budget, args.shuffle_buffer)
        else:
            figures = step_rates(Path(name), args.turns, args.shuffle_buffer)
    table = Table(title=f"streaming, {jax.devices()[0].device_kind}", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for figure, value in figures.items():
        table.add_row(figure, f"{value:,.3f}")
    Console().print(table)
    if args.out:
        args.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

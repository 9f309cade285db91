"""python -m mmer_jax.bench [--out=bench.json]: what IF-MMIN costs on this machine.

At the original sizes (audio 60×130, text 22×1024, visual 50×342, batch 128, float32), in one run
and alternating: the training step here and in PyTorch (extra `bench`), all patterns against one,
trials side by side, corpus sizes, evaluation, compilation, memory, and the time of each block; the
search for neighbours here and in faiss. On an accelerator also the whole benchmark of 10 folds ×
5 seeds.
"""

import argparse
import json
import resource
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
from rich.console import Console
from rich.table import Table

from mmer_jax.bench import blocks, retrieval
from mmer_jax.bench.setting import BATCH, ORIGINAL, STEPS, Student, original_corpus
from mmer_jax.data.missing import full_pattern, missing_patterns

PATTERNS = 6
Figures = dict[str, float]


def alternate(timers: dict[str, Callable[[], float]], repeats: int) -> Figures:
    """Median seconds of each timer, all called in turn."""
    times: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(repeats):
        for name, timer in timers.items():
            times[name].append(timer())
    return {name: statistics.median(found) for name, found in times.items()}


def compilation(corpus) -> Figures:
    """Seconds to compile a stage's epoch program, with an empty and with a filled cache."""
    jax.config.update("jax_compilation_cache_dir", tempfile.mkdtemp(prefix="mmer_bench_"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    student = Student(corpus, 1)
    cold = student.epoch()
    jax.clear_caches()
    warm = student.epoch()
    run = statistics.median(student.epoch() for _ in range(3))
    return {"compile_cold_s": cold - run, "compile_warm_s": warm - run}


def steps(corpus, repeats: int) -> Figures:
    """The training step: all patterns, one pattern, and in PyTorch where it is installed."""
    all_patterns, one = Student(corpus, 1), Student(corpus, 1, training="sample")
    timers = {
        "step_all_patterns": lambda: all_patterns.epoch() / STEPS,
        "step_one_pattern": lambda: one.epoch() / STEPS,
    }
    try:
        from mmer_jax.bench.torch_ifmmin import TorchStep
    except ImportError:
        Console(stderr=True).print("no torch here (extra `bench`): no comparison with PyTorch")
    else:
        released = TorchStep(ORIGINAL, BATCH, text="conv2d")
        tuned = TorchStep(ORIGINAL, BATCH, text="conv1d")
        timers |= {"step_torch": released.step_seconds, "step_torch_conv1d": tuned.step_seconds}
    for timer in timers.values():
        timer()  # compiles, warms up
    found = alternate(timers, repeats)
    figures = {f"{name}_ms": 1e3 * seconds for name, seconds in found.items()}
    matmul = blocks.matmul_gflops()
    figures["step_gflop"] = all_patterns.compiled(steps=1).cost_analysis()["flops"] / 1e9
    figures["gflop_per_s"] = figures["step_gflop"] / found["step_all_patterns"]
    figures["fraction_of_matmul_rate"] = figures["gflop_per_s"] / matmul
    figures["all_over_one"] = found["step_all_patterns"] / found["step_one_pattern"]
    ours = PATTERNS * BATCH / found["step_all_patterns"]
    figures["pattern_utterances_per_s"] = ours
    for name in ("torch", "torch_conv1d"):
        if f"step_{name}" in found:
            theirs = BATCH / found[f"step_{name}"]
            figures[f"pattern_utterances_per_s_{name}"] = theirs
            figures[f"ratio_to_{name}"] = ours / theirs
    return figures


def trials(corpus, repeats: int) -> Figures:
    """Milliseconds of a trial's step when several train side by side."""
    figures = {}
    for count in (1, 2, 5, 10):
        student = Student(corpus, count)
        student.epoch()
        seconds = statistics.median(student.epoch() for _ in range(repeats))
        figures[f"step_per_trial_ms_{count}_trials"] = 1e3 * seconds / STEPS / count
    return figures


def corpus_sizes(repeats: int) -> Figures:
    """The step on corpora of several sizes: gathering rows must not depend on it."""
    students = {n: Student(original_corpus(n), 1) for n in (512, 2048, 5531)}
    timers = {f"step_corpus_{n}_ms": s.epoch for n, s in students.items()}
    for timer in timers.values():
        timer()
    return {k: 1e3 * v / STEPS for k, v in alternate(timers, repeats).items()}


def evaluation(corpus, repeats: int) -> Figures:
    """Prediction for 512 utterances: full modality, the six patterns, and all that rates need."""
    student = Student(corpus, 1)
    full, six = full_pattern(3), missing_patterns(3)
    timers = {
        "predict_full_ms": lambda: student.predict(full),
        "predict_six_patterns_ms": lambda: student.predict(six),
        # Every rate and every draw is a choice among these seven.
        "predict_all_rates_ms": lambda: student.predict(_every(full, six)),
    }
    for timer in timers.values():
        timer()
    figures = {k: 1e3 * v for k, v in alternate(timers, 3 * repeats).items()}
    figures["six_over_full"] = figures["predict_six_patterns_ms"] / figures["predict_full_ms"]
    return figures


def _every(full, six):
    return jax.numpy.concatenate([full, six])


def memory(corpus) -> Figures:
    """MiB of an epoch: the features, what the trials own (state, teacher tensors), temporaries."""
    figures = {"features_mib": len(corpus) * corpus.row_bytes / 2**20}
    for count in (1, 10, 30):
        student = Student(corpus, count)
        temporaries = student.compiled().memory_analysis().temp_size_in_bytes
        figures[f"owned_mib_{count}_trials"] = student.owned_bytes() / 2**20
        figures[f"temporaries_mib_{count}_trials"] = temporaries / 2**20
    one, many = (
        figures[f"owned_mib_{n}_trials"] + figures[f"temporaries_mib_{n}_trials"] for n in (1, 30)
    )
    features = figures["features_mib"]
    figures["memory_of_30_over_30_times_one"] = (features + many) / (features + 30 * one)
    figures["process_peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return figures


def accelerator(repeats: int) -> Figures:
    """10 folds × 5 seeds on a corpus of the original size: hours of the student's 40 epochs."""
    corpus = original_corpus(5531)
    student = Student(corpus, 50)
    student.epoch()
    seconds = statistics.median(student.epoch() for _ in range(repeats)) / STEPS
    n_steps = -(-4400 // BATCH)  # of an epoch: four of five sessions
    return {
        "step_50_trials_ms": 1e3 * seconds,
        "student_50_trials_40_epochs_h": 40 * n_steps * seconds / 3600,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--repeats", type=int, default=7, help="medians are over so many")
    parser.add_argument(
        "--only", nargs="*", default=(), choices=[*PARTS, "blocks"], help="measure these alone"
    )
    args = parser.parse_args()
    device = jax.devices()[0]
    corpus = original_corpus(STEPS * BATCH)
    console = Console()
    figures: Figures = {"matmul_gflops": blocks.matmul_gflops()}
    for name, part in PARTS.items():
        if args.only and name not in args.only:
            continue
        if name == "accelerator" and device.platform == "cpu":
            continue
        found = part(corpus, args.repeats)
        figures |= found
        _show(console, f"{name}, {device.device_kind}, batch {BATCH}", found)
    rows = []
    if not args.only or "blocks" in args.only:
        rows = blocks.measure(args.repeats)
        _show_blocks(console, rows, figures["matmul_gflops"])
    if args.out:
        text = json.dumps(
            {"device": device.device_kind, "figures": figures, "blocks": rows}, indent=2
        )
        args.out.write_text(text + "\n")


PARTS: dict[str, Callable] = {
    "compilation": lambda corpus, repeats: compilation(corpus),
    "steps": steps,
    "trials": trials,
    "corpus": lambda corpus, repeats: corpus_sizes(repeats),
    "evaluation": evaluation,
    "memory": lambda corpus, repeats: memory(corpus),
    "accelerator": lambda corpus, repeats: accelerator(repeats),
    "retrieval": lambda corpus, repeats: retrieval.measure(repeats),
}


def _show(console: Console, title: str, figures: Figures) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.2f}")
    console.print(table)


def _show_blocks(console: Console, rows, matmul: float) -> None:
    table = Table(title=f"blocks, loss and gradient; a large product: {matmul:.0f} GFLOP/s")
    for name in ("block", "ms", "GFLOP", "GFLOP/s"):
        table.add_column(name, justify="left" if name == "block" else "right")
    for row in rows:
        table.add_row(row["block"], *(f"{row[key]:.1f}" for key in ("ms", "gflop", "gflops")))
    console.print(table)


if __name__ == "__main__":
    main()

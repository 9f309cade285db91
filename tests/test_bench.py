"""The benchmark at toy sizes: that it measures what it says, not how fast it is."""

import importlib.util
import json
import subprocess
import sys

import pytest

from mmer_jax.bench import __main__ as bench
from mmer_jax.bench import blocks, setting, streaming


@pytest.fixture
def small(monkeypatch):
    sizes = {"audio": (5, 6), "text": (7, 6), "visual": (4, 3)}
    for module in (setting, bench, blocks):
        monkeypatch.setattr(module, "ORIGINAL", sizes)
    for module in (setting, bench, blocks, streaming):
        monkeypatch.setattr(module, "BATCH", 8)
    return setting.original_corpus(setting.STEPS * 8)


def test_medians_are_over_alternating_calls():
    calls = []
    timers = {name: lambda n=name: calls.append(n) or len(calls) for name in "ab"}
    assert bench.alternate(timers, 3) == {"a": 3, "b": 4}
    assert calls == list("ababab")


@pytest.mark.slow
def test_figures_and_json(small, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "original_corpus", lambda n: small)
    # PyTorch has a test of its own: its CUDA build aborts beside TensorFlow in one process.
    monkeypatch.setitem(sys.modules, "mmer_jax.bench.torch_ifmmin", None)
    out = tmp_path / "bench.json"
    parts = ["steps", "blocks"]
    monkeypatch.setattr(sys, "argv", ["bench", f"--out={out}", "--repeats=1", "--only", *parts])
    bench.main()
    written = json.loads(out.read_text())
    figures = written["figures"]
    assert figures["all_over_one"] == pytest.approx(
        figures["step_all_patterns_ms"] / figures["step_one_pattern_ms"]
    )
    rate = figures["pattern_utterances_per_s"] * figures["step_all_patterns_ms"] / 1e3
    assert rate == pytest.approx(6 * 8)
    assert [row["block"].split(":")[0] for row in written["blocks"]][:3] == list(setting.ORIGINAL)
    printed = capsys.readouterr()
    assert "blocks, loss and gradient" in printed.out and "no torch here" in printed.err


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="PyTorch is not installed")
def test_the_pytorch_program_takes_a_step():
    program = (
        "from mmer_jax.bench.torch_ifmmin import TorchStep\n"
        "sizes = {'audio': (5, 6), 'text': (7, 6), 'visual': (4, 3)}\n"
        "for text in ('conv2d', 'conv1d'):\n"
        "    assert TorchStep(sizes, 8, text=text).step_seconds() > 0\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.slow
def test_trials_that_do_not_divide_the_devices(small):
    student = setting.Student(small, 10)
    assert student.epoch() > 0 and student.owned_bytes() > 0


@pytest.mark.slow
def test_streaming_is_measured_beside_a_resident_corpus(small, monkeypatch, tmp_path):
    monkeypatch.setattr(streaming, "STEPS", 6)
    figures = streaming.step_rates(tmp_path, turns=1, shuffle_buffer=16)
    assert figures["fraction_of_device_rate"] == pytest.approx(
        figures["device_epoch_s"] / figures["stream_epoch_s"]
    )
    assert 0 < figures["reading_epoch_s"]


@pytest.mark.slow
def test_the_memory_of_many_clips_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(streaming, "BATCH", 8)
    figures = streaming.clip_memory(tmp_path, clips=200, budget=2**20, shuffle_buffer=50)
    assert figures["features_mib"] == 200 * 3 * 1024 * 4 / 2**20
    assert figures["peak_mib"] >= figures["before_mib"] > 0 and figures["building_peak_mib"] > 0


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("faiss"), reason="faiss is not installed")
def test_neighbours_are_those_of_faiss():
    program = (
        "from mmer_jax.bench import retrieval\n"
        "retrieval.SIZES = (3000, 16, 50, 4)\n"
        "figures = retrieval.measure(1)\n"
        "other = {name: n for name, n in figures.items() if name.endswith('other_rows')}\n"
        "assert len(other) == 4 and not any(other.values()), other\n"
        "assert figures['search_inner_float32_over_faiss'] > 0\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

"""Sweep files: the points they make, and what is said of faulty ones."""

import pytest
from helpers import shrunk
from places import ROOT

from configs import demo, ei2, hardy, ifmmin, mosei_utt_fusion, ramer
from mmer_jax.errors import UserError
from mmer_jax.sweep import choice, grid, load_sweep, log_uniform, random, uniform

LR, BATCH = "stages.ifmmin.learning_rate", "stages.ifmmin.batch_size"


def load(tmp_path, body, config=None):
    path = tmp_path / "sweep.py"
    path.write_text(f"def sweep():\n    {body}\n")
    return load_sweep(path, config or demo.get_config())


def test_a_grid_is_every_combination():
    points = list(grid({"a": [1, 2], "b": ["x", "y"]}))
    assert points == [{"a": a, "b": b} for a in (1, 2) for b in "xy"]


def test_random_points_are_reproducible_and_in_range():
    samplers = {"a": log_uniform(1e-4, 1e-2), "b": uniform(0, 1), "c": choice([3, 5])}
    points = list(random(50, samplers, seed=1))
    assert points[:10] == list(random(10, samplers, seed=1)) != list(random(10, samplers, seed=2))
    values = [p["a"] for p in points]
    assert 1e-4 <= min(values) < 5e-4 and 2e-3 < max(values) <= 1e-2
    assert {p["c"] for p in points} == {3, 5} and all(0 <= p["b"] <= 1 for p in points)


def test_every_point_has_its_own_values_and_the_config_keeps_its_own(tmp_path):
    config = demo.get_config()
    before = config.stages.ifmmin.learning_rate
    points = load(tmp_path, f"yield {{{LR!r}: 0.5}}; yield {{{LR!r}: 0.25, {BATCH!r}: 7}}", config)
    assert [p.config.stages.ifmmin.learning_rate for p in points] == [0.5, 0.25]
    assert [p.config.stages.ifmmin.batch_size for p in points] == [32, 7]
    assert config.stages.ifmmin.learning_rate == before


def test_points_share_a_program_as_long_as_shapes_are_the_same(tmp_path):
    points = load(
        tmp_path,
        f"yield {{{LR!r}: 0.5}}; yield {{'data.clip_std': 0.0, {LR!r}: 0.1}}; "
        f"yield {{'stages.utt_shared.cmd_weight': 2.0}}; yield {{{BATCH!r}: 7}}; "
        "yield {'model.blocks': 2}; yield {'stages.ifmmin.b1': 0.9}",
    )
    assert len({p.program_key for p in points[:3]}) == 1
    assert len({p.program_key for p in points}) == 4


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "configs/sweeps").glob("*.py")))
def test_shipped_sweeps_load(name):
    configs = {"demo": demo, "ei2_ablation": ei2, "mosei_utt_fusion": mosei_utt_fusion}
    configs |= {"ramer_ablation": ramer, "hardy_ablation": hardy}
    config = configs.get(name, ifmmin).get_config()
    assert len(load_sweep(ROOT / "configs" / "sweeps" / f"{name}.py", config)) >= 4


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return []", "yields no point"),
        ("yield {'stages.ifmmin.rate': 1}", "point 0: unknown config key 'stages.ifmmin.rate'; "),
        (f"yield {{{LR!r}: 0.1}}; yield {{{LR!r}: 'fast'}}", "point 1: stages.ifmmin.learning"),
        (f"yield {{{LR!r}: -1.0}}", "stages.ifmmin.learning_rate is -1.0"),
        (f"yield {{{LR!r}: 0.1}}; yield {{{LR!r}: 0.1}}", "yields points twice: 1"),
        ("yield {'data.label': 'x'}", "changes data.label; a sweep may change model., stages."),
        ("yield {'trials.seeds': 3}", "changes trials.seeds"),
        ("yield {'train.noise_steps': 3}", "changes train.noise_steps"),
        ("yield 3", "point 0 is 3; expected a dict"),
        ("1 / 0", "fails: ZeroDivisionError"),
        ("yield {'train.rate': 2.0}", "train.rate is 2.0"),
    ],
)
def test_faulty_sweep_files_are_explained(tmp_path, body, message):
    with pytest.raises(UserError, match=message):
        load(tmp_path, body, shrunk(demo.get_config()))


def test_a_sweep_file_must_exist_and_define_sweep(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_sweep(tmp_path / "nope.py", demo.get_config())
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(UserError, match="it must define sweep"):
        load_sweep(tmp_path / "empty.py", demo.get_config())

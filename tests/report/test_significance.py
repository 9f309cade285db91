"""Paired tests: Wilcoxon against scipy and by hand, Holm by hand, and what few pairs can say."""

import numpy as np
import pytest
from report_workdirs import Workdir
from scipy import stats

from mmer_jax.report.runs import load_run
from mmer_jax.report.significance import compare, holm, smallest_p, too_few, wilcoxon_p
from mmer_jax.report.tables import significance_table


def methods(tmp_path, **scores):
    """Method -> WA per seed, with all modalities."""
    found = {}
    for method, values in scores.items():
        made = Workdir(tmp_path / method, method)
        for seed, value in enumerate(values):
            made.add((0, seed), "full", "audio+text+visual", {"WA": value})
        found[method] = load_run(made.write()).scores
    return found


def test_wilcoxon_by_hand():
    # Six differences of one sign: only one of the 2^6 sign patterns is as extreme, on two sides.
    assert wilcoxon_p([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]) == pytest.approx(2 / 64)
    # With the smallest negative, rank sum 1: patterns of rank sum ≤ 1 are {} and {1}.
    assert wilcoxon_p([-0.1, 0.2, 0.3, 0.4, 0.5, 0.6]) == pytest.approx(4 / 64)


@pytest.mark.parametrize("n", [7, 12, 60])
def test_wilcoxon_is_scipys(n):
    d = np.random.default_rng(n).normal(0.3, 1, size=n)
    assert wilcoxon_p(d) == pytest.approx(stats.wilcoxon(d).pvalue, abs=1e-12)


def test_no_difference_at_all_is_p_1():
    assert wilcoxon_p([0.0] * 8) == 1.0
    assert wilcoxon_p(np.array([0.1 + 0.2] * 8) - 0.3) == 1.0  # but for a float's rounding


def test_holm_by_hand():
    # Sorted 0.01·4, 0.02·3, 0.03·2, 0.04·1, each at least the one before.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_pairs_are_the_trials_that_both_have(tmp_path):
    found = compare(methods(tmp_path, a=[0.5, 0.6, 0.7], b=[0.4, 0.4]))
    assert [(c.quantity, c.metric, c.pairs) for c in found] == [("full", "WA", 2)]
    assert found[0].difference == pytest.approx(0.15)  # of 0.1 and 0.2, the third has no partner


def test_every_pair_of_methods_is_adjusted_together(tmp_path):
    base = np.linspace(0.4, 0.5, 6)
    steps = np.arange(1, 7) / 100
    found = compare(methods(tmp_path, a=base + steps, b=base, c=base))
    assert [(c.a, c.b, c.p) for c in found] == [
        ("a", "b", pytest.approx(1 / 32)),
        ("a", "c", pytest.approx(1 / 32)),
        ("b", "c", 1.0),
    ]
    assert [c.adjusted for c in found] == pytest.approx([3 / 32, 3 / 32, 1.0])
    table = significance_table(found)
    assert table.rows[0] == ["a − b", "full", "WA", "+3.50", "6", "0.031", "0.094"]


def test_quantities_are_full_patterns_mean_area_and_noise(tmp_path):
    found = {}
    for method, gain in (("a", 0.1), ("b", 0.0)):
        made = Workdir(tmp_path / method, method)
        for seed in range(6):
            score = 0.5 + 0.01 * seed
            made.add((0, seed), "full", "audio+text+visual", {"UA": score + gain})
            made.add((0, seed), "pattern", "audio", {"UA": score + 2 * gain})
            made.add((0, seed), "pattern", "text", {"UA": score})
            made.add((0, seed), "rate", "0.0", {"UA": score + 4 * gain})
            made.add((0, seed), "rate", "0.5", {"UA": score})
            made.add((0, seed), "noise", "gaussian:20", {"UA": score + 3 * gain})
            made.add((0, seed), "noise", "gaussian:100", {"UA": score + 5 * gain})
        found[method] = load_run(made.write()).scores
    differences = {c.quantity: c.difference for c in compare(found)}
    assert differences == pytest.approx(
        {
            "full": 0.1,
            "missing, mean": 0.1,
            "area under the rate curve": 0.2,
            "gaussian noise, mean of levels": 0.4,
        }
    )
    # One pair of methods: each question is asked once, and nothing is adjusted.
    assert all(c.adjusted == c.p for c in compare(found))


def test_too_few_pairs_are_said_in_words(tmp_path):
    five = compare(methods(tmp_path / "5", a=[0.5] * 5, b=np.arange(5) / 10))
    assert "with 5 the test can never reach p < 0.05" in too_few(five)
    assert "at least 6" in too_few(five) and "0.0625" in too_few(five)
    six = compare(methods(tmp_path / "6", a=[0.5] * 6, b=np.arange(6) / 10))
    assert too_few(six) == "" and smallest_p(6) == pytest.approx(wilcoxon_p(np.arange(1, 7)))
    three = compare(methods(tmp_path / "3", a=[0.5] * 6, b=np.arange(6) / 10, c=[0.1] * 6))
    assert "Holm's adjustment over 3 comparisons can raise to 0.0938" in too_few(three)

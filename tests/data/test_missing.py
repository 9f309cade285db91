"""Masks at a missing rate: nominal and effective rates, independence of order, nesting."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmer_jax.config import base
from mmer_jax.data import missing, protocols
from mmer_jax.errors import UserError

IDS = np.array([f"u{i}" for i in range(6000)])
KEY = {"seed": 0, "draw": 0, "split": "test"}


def masks(rates, ids=IDS, **changes):
    return missing.utterance_masks(ids, rates, **{**KEY, **changes})


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.4, 0.6, 2 / 3])
def test_slots_are_missing_at_the_nominal_rate(rate):
    left = masks([rate] * 3)
    np.testing.assert_allclose(1 - left.mean(axis=0), rate, atol=0.025)


def test_rates_differ_by_modality():
    left = masks([0.1, 0.5, 0.7])
    np.testing.assert_allclose(1 - left.mean(axis=0), [0.1, 0.5, 0.7], atol=0.025)


def test_three_modalities_cannot_miss_more_than_two_thirds():
    left = masks([0.7] * 3)
    assert (left.sum(axis=1) == 1).all()
    np.testing.assert_allclose(left.mean(axis=0), 1 / 3, atol=0.025)


def test_rate_zero_is_full_modality_exactly():
    assert masks([0.0] * 3).all()


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=5),
    st.lists(st.text(max_size=5), min_size=1, max_size=20, unique=True),
)
def test_something_is_always_left(rates, ids):
    assert masks(rates, ids).any(axis=1).all()


@given(st.permutations(range(30)))
def test_a_mask_does_not_depend_on_its_neighbours(order):
    whole = masks([0.5] * 3, IDS[:30])
    np.testing.assert_array_equal(masks([0.5] * 3, IDS[:30][order]), whole[order])
    np.testing.assert_array_equal(masks([0.5] * 3, IDS[:7]), whole[:7])


def test_a_mask_depends_on_seed_draw_and_split():
    mine = masks([0.5] * 3)
    for change in ({"seed": 1}, {"draw": 1}, {"split": "validation"}):
        assert 0.3 < (masks([0.5] * 3, **change) != mine).mean() < 0.6


def test_what_is_missing_stays_missing_at_a_higher_rate():
    by_rate = [masks([rate] * 3) for rate in np.arange(0, 0.8, 0.1)]
    for lower, higher in zip(by_rate, by_rate[1:], strict=False):
        assert (higher <= lower).all()


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.7])
def test_every_dialogue_misses_the_rate_itself(rate):
    dialogues = np.repeat([f"d{i}" for i in range(60)], 10)
    left = missing.dialogue_masks(IDS[:600], dialogues, 3, rate, **KEY)
    assert left.any(axis=1).all()
    expected = min(round(rate * 30), 20)
    assert {int((~left[dialogues == d]).sum()) for d in np.unique(dialogues)} == {expected}
    order = np.random.default_rng(0).permutation(600)
    shuffled = missing.dialogue_masks(IDS[:600][order], dialogues[order], 3, rate, **KEY)
    np.testing.assert_array_equal(shuffled, left[order])


# ---- conditions ----


def settings(**changes):
    eval_ = base().eval
    eval_.update(changes)
    return eval_


def test_conditions_stand_in_the_order_asked_for(corpus):
    asked = settings(
        protocols=("full", "rate", "imbalanced"), rates=(0.0, 0.5), imbalanced=((0.1, 0.2, 0.9),)
    )
    found = [(c.protocol, c.name) for c in protocols.make_conditions(corpus, asked)]
    assert found == [
        ("full", "audio+text+visual"),
        ("rate", "0.0"),
        ("rate", "0.5"),
        ("imbalanced", "audio=0.1+text=0.2+visual=0.9"),
    ]


def test_the_effective_rate_counts_only_what_was_there(corpus):
    condition = protocols.make_conditions(corpus, settings(protocols=("rate",), rates=(0.5,)))[0]
    rows = np.arange(50)
    assert protocols.effective_rate(condition, corpus, rows) == pytest.approx(
        1 - condition.available[:, rows].mean()
    )


def test_digests_tell_masks_apart(corpus):
    def digest(**changes):
        asked = settings(protocols=("rate",), rates=(0.3,), **changes)
        return protocols.mask_digests(
            protocols.make_conditions(corpus, asked), corpus, base().noise
        )["rate"]

    assert digest() == digest() != digest(mask_seed=1)


def test_saved_masks_name_their_axes(corpus, tmp_path):
    asked = settings(protocols=("full", "rate"), rates=(0.0, 0.3), mask_draws=2)
    conditions = protocols.make_conditions(corpus, asked)
    protocols.save_masks(tmp_path / "masks", conditions, corpus)
    assert [p.name for p in (tmp_path / "masks").iterdir()] == ["rate.npz"]
    with np.load(tmp_path / "masks" / "rate.npz") as saved:
        assert saved["available"].shape == (2, 2, len(corpus), 3)
        assert list(saved["conditions"]) == ["0.0", "0.3"]
        np.testing.assert_array_equal(saved["utt_id"], corpus.ids)
        np.testing.assert_array_equal(saved["available"][1], conditions[2].available)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocols": ()}, "eval.protocols is empty"),
        ({"protocols": ("rates",)}, "eval.protocols names 'rates'; choose some of: full, pattern"),
        ({"protocols": ("rate",), "rates": (0.5, 1.5)}, "eval.rates holds 1.5"),
        ({"protocols": ("full", "full")}, "asks for conditions twice: full audio"),
        ({"protocols": ("imbalanced",)}, "give eval.imbalanced"),
        (
            {"protocols": ("imbalanced",), "imbalanced": ((0.1, 0.2),)},
            "expected one rate for each of audio, text, visual",
        ),
    ],
)
def test_mistakes_are_named(corpus, changes, message):
    with pytest.raises(UserError, match=message):
        protocols.make_conditions(corpus, settings(**changes))


def test_close_imbalanced_rates_are_different_conditions(corpus):
    asked = settings(protocols=("imbalanced",), imbalanced=((0.25, 0.5, 0.7), (0.2, 0.5, 0.7)))
    names = [c.name for c in protocols.make_conditions(corpus, asked)]
    assert names == ["audio=0.25+text=0.5+visual=0.7", "audio=0.2+text=0.5+visual=0.7"]


def test_utterances_without_a_dialogue_are_named(corpus):
    columns = dict(corpus.columns) | {"dialogue": np.array(["d"] * (len(corpus) - 1) + [""])}
    blank = dataclasses.replace(corpus, columns=columns)
    with pytest.raises(UserError, match=f"1 utterances no dialogue: {corpus.ids[-1]}"):
        protocols.make_conditions(blank, settings(protocols=("dialogue_rate",)))


def test_noise_digests_know_the_schedule(corpus):
    conditions = protocols.make_conditions(
        corpus, settings(protocols=("full", "noise"), noise=("gaussian",), noise_levels=(20,))
    )
    noise = base().noise
    digest = protocols.mask_digests(conditions, corpus, noise)
    assert set(digest) == {"noise"}
    assert protocols.mask_digests(conditions, corpus, noise) == digest
    noise.beta_end = 0.4
    assert protocols.mask_digests(conditions, corpus, noise) != digest

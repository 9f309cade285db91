"""Requests: the mean that was asked for, in the order of the accent's own phones."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmer_jax.errors import UserError
from mmer_jax.speech.requests import of_phones, parse, spread

strengths = st.lists(st.floats(0.0, 1.0, width=32), min_size=1, max_size=12)


@settings(deadline=None, max_examples=50)
@given(strengths, st.floats(0.0, 1.0, width=32))
def test_spread_has_the_mean_and_the_order(natural, mean):
    size = 14
    row = np.zeros(size, np.float32)
    row[1 : 1 + len(natural)] = natural
    spoken = np.zeros(size, bool)
    spoken[1 : 1 + len(natural)] = True
    found = np.asarray(spread(jnp.array([row]), jnp.array([mean]), jnp.array([spoken])))[0]
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_array_equal(found[~spoken], 0.0)
    assert found[spoken].mean() == pytest.approx(mean, abs=2e-3)
    order = np.argsort(row[spoken], kind="stable")
    assert (np.diff(found[spoken][order]) >= -1e-6).all()


def test_stronger_requests_are_stronger_for_every_phone():
    natural = jnp.tile(jnp.array([[0.1, 0.5, 0.9]]), (11, 1))
    found = spread(natural, jnp.linspace(0, 1, 11), jnp.ones((11, 3), bool))
    assert (jnp.diff(found, axis=0) > -1e-6).all()
    np.testing.assert_array_equal(found[0], 0.0)
    np.testing.assert_array_equal(found[-1], 1.0)


@pytest.mark.parametrize("text", ["", "strong", "0.5,", "-0.1", "1.01", "nan"])
def test_what_is_no_intensity_is_refused(text):
    with pytest.raises(UserError, match="from 0 to 1"):
        parse(text)


def test_lists_go_to_words_or_phones():
    words = np.array([-1, 0, 0, 1, 1, 1, -1])
    np.testing.assert_allclose(of_phones(parse("0.2,0.8"), words), [0, 0.2, 0.2, *[0.8] * 3, 0])
    np.testing.assert_allclose(
        of_phones(parse("0,.1,.2,.3,.4"), words), [0, 0, 0.1, 0.2, 0.3, 0.4, 0]
    )
    with pytest.raises(UserError, match="2 words of 5 phones; give one number, 2 or 5"):
        of_phones(parse("0.1,0.2,0.3"), words)

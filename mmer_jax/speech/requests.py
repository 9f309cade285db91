"""What intensity is asked of each phone: from one number for the utterance, or from a list.

An utterance-level request goes to its phones as the accent itself would spread it. The intensity
predictor says how strong each phone is of itself, p; the request is p^γ with the one γ that gives
the mean asked for. So a weak accent shows at its most telling phones first, 0 leaves no accent and
1 is the strongest for every phone.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mmer_jax.errors import UserError

STEPS = 40  # of the bisection; the mean is then exact to float32
WIDEST = 8.0  # γ lies within e^±8


def spread(
    natural: Float[Array, "B P"], mean: Float[Array, " B"], spoken: Bool[Array, "B P"]
) -> Float[Array, "B P"]:
    """Intensities of phones whose mean over `spoken` is `mean`, in the order of `natural`.

    Args:
      natural: predicted intensities; taken as at least 0.02 and at most 0.98, so that each phone
        can have any intensity.
      mean: from 0 to 1, of each utterance.
      spoken: False for silence and padding, which have 0.
    """
    logs = jnp.log(jnp.clip(natural, 0.02, 0.98))
    count = jnp.maximum(jnp.sum(spoken, axis=1), 1)

    def powers(log_gamma):
        values = jnp.exp(jnp.exp(log_gamma)[:, None] * logs)
        return jnp.where(spoken, values, 0.0)

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        too_strong = jnp.sum(powers(middle), axis=1) / count > mean
        return jnp.where(too_strong, middle, low), jnp.where(too_strong, high, middle)

    ends = jnp.full_like(mean, -WIDEST), jnp.full_like(mean, WIDEST)
    low, high = jax.lax.fori_loop(0, STEPS, halve, ends)
    between = powers((low + high) / 2)
    whole = jnp.where(spoken, jnp.round(mean)[:, None], 0.0)
    return jnp.where(((mean <= 0) | (mean >= 1))[:, None], whole, between)


def parse(text: str) -> np.ndarray:
    """The numbers of --intensity: '0.7', or '0.2,0.9,...' of each word or phone.

    Raises:
      UserError: something is no number from 0 to 1.
    """
    try:
        values = np.array([float(part) for part in text.split(",")], np.float32)
    except ValueError:
        values = np.array([np.nan], np.float32)
    if not ((values >= 0) & (values <= 1)).all():
        raise UserError(
            f"--intensity is '{text}'; expected a number from 0 to 1, or such numbers joined by "
            "commas, one for each word or for each phone"
        )
    return values


def of_phones(values: np.ndarray, words: np.ndarray) -> np.ndarray:
    """A list's numbers as the phones' [P], by word or by phone, whichever it fits.

    Args:
      values: as many as there are words or spoken phones.
      words: [P] the phones' words; -1: silence, which has 0.

    Raises:
      UserError: there are neither as many numbers as words nor as phones.
    """
    spoken = words >= 0
    n_words, n_phones = int(words.max(initial=-1)) + 1, int(spoken.sum())
    if len(values) not in (n_words, n_phones):
        raise UserError(
            f"--intensity has {len(values)} numbers, but the text has {n_words} words of "
            f"{n_phones} phones; give one number, {n_words} or {n_phones}"
        )
    found = np.zeros(len(words), np.float32)
    found[spoken] = values if len(values) == n_phones else values[words[spoken]]
    return found

"""How hard an utterance is under a pattern (HARDY-MER; Liu et al., ACM MM 2025; METHODS §6).

Direct hardness d is the error with which what is missing is reconstructed; indirect hardness m is
what the modalities of an utterance know of each other. Both are scaled to [0, 1], and

    H = sigmoid(β · (α₁ · d + α₂ · m))
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

LEAST_PROBABILITY = 1e-6
INSIDE_LOG = 1e-7
LEAST_RANGE = 1e-5  # of direct hardness: where all utterances are alike, none is hard


def reconstruction_error(
    reconstructed: Float[Array, "... F"],
    features: Float[Array, "... F"],
    missing: Bool[Array, "... M"],
    *,
    dims: Sequence[int],
) -> Float[Array, "..."]:
    """Sum over the missing modalities of the mean squared error of their features.

    Args:
      reconstructed, features: the modalities side by side.
      missing: those that count; their features are the true ones.
      dims: of each modality, together F.
    """
    parts = jnp.split((reconstructed - features) ** 2, np.cumsum(dims)[:-1], axis=-1)
    errors = jnp.stack([part.mean(axis=-1) for part in parts], axis=-1)
    return jnp.sum(jnp.where(missing, errors, 0.0), axis=-1)


def entropy(x: Float[Array, "... h"]) -> Float[Array, "..."]:
    """In nats, of the softmax over a representation's numbers."""
    p = jnp.clip(jax.nn.softmax(x, axis=-1), LEAST_PROBABILITY, 1.0)
    return -jnp.sum(p * jnp.log(p + INSIDE_LOG), axis=-1)


def information(
    x: Float[Array, "... h"], y: Float[Array, "... h"], joint: Float[Array, "... h"]
) -> Float[Array, "..."]:
    """I(x; y) = H(x) + H(y) - H(joint), in nats."""
    return entropy(x) + entropy(y) - entropy(joint)


def min_max(
    values: Float[Array, "..."], counts: Bool[Array, "..."], *, least: float = 0.0
) -> Float[Array, "..."]:
    """`values` scaled to [0, 1] over those that count; others may be clipped.

    All 0 where the values that count span no more than `least`, or none counts; else `least` is
    added to the span.
    """
    low = jnp.min(values, where=counts, initial=jnp.inf)
    high = jnp.max(values, where=counts, initial=-jnp.inf)
    wide = high - low > least
    low, span = jnp.where(wide, low, 0.0), jnp.where(wide, high - low + least, 1.0)
    return jnp.where(wide, jnp.clip((values - low) / span, 0.0, 1.0), 0.0)


def hardness(
    direct: Float[Array, "..."],
    indirect: Float[Array, "..."],
    counts: Bool[Array, "..."],
    *,
    alpha_direct: float,
    alpha_indirect: float,
    beta: float,
) -> Float[Array, "..."]:
    """H of utterances that are scaled among each other; `counts` marks those that set the scale."""
    scaled = alpha_direct * min_max(direct, counts, least=LEAST_RANGE)
    scaled += alpha_indirect * min_max(indirect, counts)
    return jax.nn.sigmoid(beta * scaled)

"""Recurrences of LSTM and GRU, with gradients that leave as little as possible inside the loop.

What a step must wait for is one small matrix product and the gates. All else is done for all steps
at once: the input projection (by the caller) before the loop, the weight gradient after the
backward loop, as one large product instead of one small one per step.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_vjp
def lstm(projected: Float[Array, "T B g"], w_hidden: Float[Array, "h g"]) -> Float[Array, "T B h"]:
    """Hidden states of an LSTM that starts from zeros.

    Args:
      projected: what inputs and biases contribute to the gates i, f, g, o; g = 4h.
      w_hidden: what the previous hidden state contributes.
    """
    return _forward(projected, w_hidden)[0]


def _forward(projected, w_hidden):
    def step(carry, inputs):
        hidden, cell = carry
        i, f, g, o = jnp.split(inputs + hidden @ w_hidden, 4, axis=-1)
        i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
        cell = f * cell + i * g
        hidden = o * jnp.tanh(cell)
        return (hidden, cell), (hidden, cell, i, f, g, o)

    zeros = jnp.zeros((projected.shape[1], w_hidden.shape[0]), projected.dtype)
    _, (hidden, *rest) = jax.lax.scan(step, (zeros, zeros), projected)
    return hidden, (w_hidden, hidden, *rest)


def _backward(residuals, d_output):
    w_hidden, hidden, cell, *gates = residuals
    transposed = w_hidden.T

    def step(carry, inputs):
        d_hidden, d_cell = carry
        d_out, cell, cell_before, i, f, g, o = inputs
        d_hidden += d_out
        squashed = jnp.tanh(cell)
        d_cell += d_hidden * o * (1 - squashed**2)
        d_gates = jnp.concatenate(
            [
                d_cell * g * i * (1 - i),
                d_cell * cell_before * f * (1 - f),
                d_cell * i * (1 - g**2),
                d_hidden * squashed * o * (1 - o),
            ],
            axis=-1,
        )
        return (d_gates @ transposed, d_cell * f), d_gates

    zeros = jnp.zeros_like(hidden[0])
    inputs = (d_output, cell, _shifted(cell), *gates)
    _, d_gates = jax.lax.scan(step, (zeros, zeros), inputs, reverse=True)
    return d_gates, jnp.einsum("tbh,tbg->hg", _shifted(hidden), d_gates)


def _shifted(states: Float[Array, "T B h"]) -> Float[Array, "T B h"]:
    """What each step found: the states of the steps before, zeros at first."""
    return jnp.concatenate([jnp.zeros_like(states[:1]), states[:-1]])


lstm.defvjp(_forward, _backward)


@jax.custom_vjp
def gru(
    projected: Float[Array, "T B g"],
    w_hidden: Float[Array, "h g"],
    b_hidden: Float[Array, " g"],
    counts: Float[Array, "T B"],
) -> Float[Array, "T B h"]:
    """Hidden states of a GRU that starts from zeros; its reset gate scales W_h h + b_h.

    Args:
      projected: what inputs and their biases contribute to the gates r, z, n; g = 3h.
      w_hidden, b_hidden: what the previous hidden state contributes.
      counts: 1, or 0 for a step that leaves the state as it finds it, wherever it stands.
    """
    return _gru_forward(projected, w_hidden, b_hidden, counts)[0]


def _gru_forward(projected, w_hidden, b_hidden, counts):
    def step(hidden, inputs):
        x, count = inputs
        r_x, z_x, n_x = jnp.split(x, 3, axis=-1)
        r_h, z_h, n_h = jnp.split(hidden @ w_hidden + b_hidden[None], 3, axis=-1)
        r, z = jax.nn.sigmoid(r_x + r_h), jax.nn.sigmoid(z_x + z_h)
        n = jnp.tanh(n_x + r * n_h)
        hidden = jnp.where(count[:, None] > 0, (1 - z) * n + z * hidden, hidden)
        return hidden, (hidden, r, z, n, n_h)

    zeros = jnp.zeros((projected.shape[1], w_hidden.shape[0]), projected.dtype)
    _, (hidden, *rest) = jax.lax.scan(step, zeros, (projected, counts))
    return hidden, (w_hidden, counts, hidden, *rest)


def _gru_backward(residuals, d_output):
    w_hidden, counts, hidden, *gates = residuals
    transposed = w_hidden.T

    def step(d_hidden, inputs):
        d_out, count, before, r, z, n, n_h = inputs
        d_hidden += d_out
        d_new = jnp.where(count[:, None] > 0, d_hidden, 0.0)
        d_n = d_new * (1 - z) * (1 - n**2)
        d_r = d_n * n_h * r * (1 - r)
        d_z = d_new * (before - n) * z * (1 - z)
        d_h = jnp.concatenate([d_r, d_z, d_n * r], axis=-1)
        kept = jnp.where(count[:, None] > 0, d_hidden * z, d_hidden)
        return kept + d_h @ transposed, (jnp.concatenate([d_r, d_z, d_n], axis=-1), d_h)

    before = _shifted(hidden)
    inputs = (d_output, counts, before, *gates)
    _, (d_x, d_h) = jax.lax.scan(step, jnp.zeros_like(hidden[0]), inputs, reverse=True)
    d_w = jnp.einsum("tbh,tbg->hg", before, d_h)
    return d_x, d_w, d_h.sum(axis=(0, 1)), jnp.zeros_like(counts)


gru.defvjp(_gru_forward, _gru_backward)

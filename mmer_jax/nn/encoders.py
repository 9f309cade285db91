"""Utterance encoders of the MMIN code line: one modality in, one embedding out.

All share one signature, `encoder(x, lengths, dropout)`: x is [B, D], or [B, T, D] with the number
of valid steps [B] in `lengths`; `dropout` is a rate or None. Steps past the length never count,
whatever stands there. The released code lets its recurrence and its pooling run over the batch's
padding; passing lengths = T reproduces that (quirks.pad_masking=False).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmer_jax.nn.layers import Dropout, Linear
from mmer_jax.nn.recurrence import lstm

WIDTHS = (3, 4, 5)  # of the TextCNN's convolutions, in rising order
VERY_NEGATIVE = -1e30  # for masking; finite, so that gradients stay finite


class LSTMEncoder(nn.Module):
    """One-layer LSTM (gates i, f, g, o; two bias vectors) and a pooling over its steps.

    Attributes:
      size: embedding size h.
      pooling: "maxpool", "last", or "attention" (softmax of u·tanh(W r_t + b)).
    """

    size: int
    pooling: str = "maxpool"

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], lengths: Int[Array, " B"], dropout=None
    ) -> Float[Array, "B h"]:
        del dropout
        hidden = self._recurrence(x)
        batch, steps = hidden.shape[1], hidden.shape[0]
        if self.pooling == "last":
            return hidden[lengths - 1, jnp.arange(batch)]
        valid = jnp.arange(steps)[:, None] < lengths[None]
        if self.pooling == "maxpool":
            return jnp.max(jnp.where(valid[..., None], hidden, VERY_NEGATIVE), axis=0)
        if self.pooling == "attention":
            score = nn.Dense(1, use_bias=False, name="query")(
                jnp.tanh(nn.Dense(self.size, name="key")(hidden))
            )[..., 0]
            weight = jax.nn.softmax(jnp.where(valid, score, VERY_NEGATIVE), axis=0)
            return jnp.einsum("tb,tbh->bh", weight, hidden)
        raise ValueError(f"pooling '{self.pooling}': expected maxpool, last or attention")

    def _recurrence(self, x):
        """Hidden states [T, B, h]. The input projection of all steps is one matrix product."""
        batch, steps, dim = x.shape
        init = nn.initializers.uniform(2 * self.size**-0.5)

        def centred(key, shape):  # PyTorch's U(-1/sqrt h, 1/sqrt h)
            return init(key, shape) - self.size**-0.5

        w_input = self.param("w_input", centred, (dim, 4 * self.size))
        w_hidden = self.param("w_hidden", centred, (self.size, 4 * self.size))
        # Two biases where one would do: Adam moves their sum twice as fast, as in PyTorch.
        bias = self.param("b_input", centred, (4 * self.size,)) + self.param(
            "b_hidden", centred, (4 * self.size,)
        )
        # Rows first: steps first, and every device would gather a batch that is divided over them.
        projected = x.reshape(batch * steps, dim) @ w_input + bias[None]
        return lstm(projected.reshape(batch, steps, 4 * self.size).swapaxes(0, 1), w_hidden)


class TextCNN(nn.Module):
    """Convolutions over time of some widths, ReLU, max over time, dropout, Linear, ReLU.

    A sequence shorter than a width is convolved once, with zeros after its end.
    """

    size: int
    channels: int = 128
    widths: tuple[int, ...] = WIDTHS

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], lengths: Int[Array, " B"], dropout=None
    ) -> Float[Array, "B h"]:
        widest = self.widths[-1]
        x = jnp.pad(x, ((0, 0), (0, max(0, widest - x.shape[1])), (0, 0)))
        batch, steps, dim = x.shape
        inside = jnp.arange(steps)[None] < lengths[:, None]
        # Utterances stand end to end, and a tap of a convolution is a product with the rows so many
        # steps on: a view, no copy, and under vmap no grouped convolution. Positions at which a
        # window would reach into the next utterance are left out below.
        flat = jnp.where(inside[..., None], x, 0.0).reshape(batch * steps, dim)
        flat = jnp.pad(flat, ((0, widest - 1), (0, 0)))
        out = jnp.concatenate([self._convolve(flat, width) for width in self.widths], axis=-1)
        out = out.reshape(batch, steps, -1)
        widths = jnp.repeat(jnp.array(self.widths), self.channels)
        last_start = jnp.maximum(lengths[:, None] - widths[None], 0)
        inside = jnp.arange(steps)[None, :, None] <= last_start[:, None, :]
        pooled = nn.relu(jnp.max(jnp.where(inside, out, VERY_NEGATIVE), axis=1))
        pooled = Dropout()(pooled, dropout)
        return nn.relu(Linear(self.size, name="out")(pooled))

    def _convolve(self, flat, width: int):
        """One convolution over rows [n + widest - 1, D] -> [n, channels]."""
        init = nn.initializers.variance_scaling(2.0, "fan_in", "normal", in_axis=(0, 1), out_axis=2)
        shape = (width, flat.shape[-1], self.channels)
        kernel = self.param(f"conv{width}_kernel", init, shape)
        bias = self.param(f"conv{width}_bias", nn.initializers.zeros, (self.channels,))
        n = flat.shape[0] - (self.widths[-1] - 1)
        return sum(flat[tap : tap + n] @ kernel[tap] for tap in range(width)) + bias[None]


class FcEncoder(nn.Module):
    """Linear, ReLU, dropout per layer, for a vector per utterance. `layers` ends with h."""

    layers: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Float[Array, "B D"], lengths=None, dropout=None) -> Float[Array, "B h"]:
        del lengths
        for i, size in enumerate(self.layers):
            x = Dropout()(nn.relu(Linear(size, name=f"layer{i}")(x)), dropout)
        return x

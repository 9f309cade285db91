"""The conversation before an utterance: recurrences over its turns, a context for each modality."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmer_jax.nn.layers import Dropout, Linear
from mmer_jax.nn.recurrence import gru


class BiGRU(nn.Module):
    """A bidirectional GRU; what both directions hold at the last of the steps.

    The backward direction has seen that step alone: of the last layer it takes one step.

    Attributes:
      size: hidden size h of each direction.
      layers: number of layers, each over both directions of the one before.
    """

    size: int
    layers: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], valid: Bool[Array, "B T"], dropout=None
    ) -> Float[Array, "B g"]:
        """g = 2h. Steps that are not valid leave no trace, wherever they stand; the last one is."""
        x, counts = x.swapaxes(0, 1), valid.astype(x.dtype).swapaxes(0, 1)
        for layer in range(self.layers - 1):
            weights = self._weights(layer, x.shape[-1])
            both = jnp.stack([x, x[::-1]]), weights, jnp.stack([counts, counts[::-1]])
            there, back = jax.vmap(_run)(*both)
            x = Dropout()(jnp.concatenate([there, back[::-1]], axis=-1), dropout)
        weights = self._weights(self.layers - 1, x.shape[-1])
        there, back = (jax.tree.map(lambda w, d=d: w[d], weights) for d in (0, 1))
        last = _run(x, there, counts)[-1], _run(x[-1:], back, counts[-1:])[0]
        return jnp.concatenate(last, axis=-1)

    def _weights(self, layer: int, dim: int) -> dict[str, Array]:
        """[2, ...] of both directions. Two biases, as PyTorch has them (see LSTMEncoder)."""
        init = nn.initializers.uniform(2 * self.size**-0.5)

        def centred(key, shape):  # PyTorch's U(-1/sqrt h, 1/sqrt h)
            return init(key, shape) - self.size**-0.5

        gates = 3 * self.size
        shapes = {
            "w_input": (dim, gates),
            "w_hidden": (self.size, gates),
            "b_input": (gates,),
            "b_hidden": (gates,),
        }
        return {n: self.param(f"{n}_{layer}", centred, (2, *s)) for n, s in shapes.items()}


def _run(x: Float[Array, "T B D"], weights, counts: Float[Array, "T B"]) -> Float[Array, "T B h"]:
    projected = x @ weights["w_input"] + weights["b_input"][None, None]
    return gru(projected, weights["w_hidden"], weights["b_hidden"], counts)


class ContextEncoder(nn.Module):
    """What the turns so far, and who spoke them, say of each modality.

    For each modality the steps of the previous turns, oldest first, then the utterance's own, then
    one step per turn that holds its speaker, the utterance's last.

    Attributes:
      size: h.
      layers: of the GRUs.
      n_speakers: different speakers in a dialogue, at most.
    """

    size: int
    layers: int
    n_speakers: int

    @nn.compact
    def __call__(
        self,
        features: Mapping[str, Float[Array, "B L T D"]],
        valid: Mapping[str, Bool[Array, "B L T"]],
        speakers: Int[Array, "B L"],
        turns: Bool[Array, "B L"],
        dropout=None,
    ) -> Float[Array, "B M h"]:
        """Context vectors of B utterances with L - 1 previous turns, the utterance last.

        Args:
          features: by modality; T may differ between modalities.
          valid: which steps there are.
          speakers: from 0 on, within the dialogue.
          turns: which of the L turns there are; the last always is.
          dropout: rate between the GRU's layers.
        """
        embedded = nn.Embed(
            self.n_speakers,
            self.size,
            embedding_init=nn.initializers.normal(1.0),
            name="speaker_embedding",
        )(speakers)
        who = Linear(self.size, name="speaker")(embedded)
        contexts = []
        for name, x in features.items():
            steps = Linear(self.size, name=f"project_{name}")(x)
            steps = steps.reshape(x.shape[0], -1, self.size)
            everything = jnp.concatenate([steps, who], axis=1)
            there = jnp.concatenate([valid[name].reshape(x.shape[0], -1), turns], axis=1)
            last = BiGRU(self.size, self.layers, name=f"gru_{name}")(everything, there, dropout)
            contexts.append(nn.relu(Linear(self.size, name=f"out_{name}")(last)))
        return jnp.stack(contexts, axis=1)

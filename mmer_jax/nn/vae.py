"""NMER's conditional variational autoencoder (Fan et al. 2024, §3.3; METHODS §4)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmer_jax.nn.attention import TransformerLayer
from mmer_jax.nn.layers import Linear, merge_rows


class ConditionalVAE(nn.Module):
    """From noisy embeddings x and a condition c to clean embeddings.

    Attributes:
      latent: size of z.
      layers, heads, feedforward: of the transformer that encodes.
      hidden: of the decoder, an MLP [z ; c] -> hidden -> M·h.
      attention: "modalities" attends over the 2·M embeddings of one utterance. "batch", as
        released, takes the utterances of a batch for one sequence, so that they mix.
    """

    latent: int = 64
    layers: int = 5
    heads: int = 8
    feedforward: int = 128
    hidden: int = 128
    attention: str = "modalities"

    @nn.compact
    def encode(
        self,
        x: Float[Array, "... B M h"],
        condition: Float[Array, "... B M h"],
        real: Bool[Array, "... B"],
        dropout=None,
    ) -> tuple[Float[Array, "... B z"], Float[Array, "... B z"]]:
        """(μ, log σ²); rows that are not `real` are attended to by none."""
        tokens = jnp.concatenate([x, condition], axis=-2)
        run = nn.scan(  # one layer's program instead of five; weights are stacked [layers, ...]
            lambda layer, x, valid: (layer(x, valid, dropout), None),
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,
            length=self.layers,
        )
        layers = TransformerLayer(self.heads, self.feedforward, name="layers")
        if self.attention == "batch":
            encoded, _ = run(layers, tokens.reshape(*tokens.shape[:-2], -1), real)
        else:
            rows, restore = merge_rows(tokens, inner=2)
            # Attention itself does not know which token is which.
            init = nn.initializers.normal(0.02)
            rows += self.param("position", init, rows.shape[1:])[None]
            encoded, _ = run(layers, rows, None)
            encoded = restore(encoded.reshape(len(rows), -1))
        rows, restore = merge_rows(encoded)
        mean = Linear(self.latent, name="mean")(rows)
        return restore(mean), restore(Linear(self.latent, name="log_variance")(rows))

    @nn.compact
    def decode(
        self, z: Float[Array, "... B z"], condition: Float[Array, "... B M h"]
    ) -> Float[Array, "... B M h"]:
        """Clean embeddings. (The released code lacks its decoder; this one is ours.)"""
        flat = condition.reshape(*z.shape[:-1], -1)
        rows, restore = merge_rows(jnp.concatenate([z, flat], axis=-1))
        hidden = nn.relu(Linear(self.hidden, name="decoder0")(rows))
        return restore(Linear(flat.shape[-1], name="decoder1")(hidden)).reshape(condition.shape)

    def __call__(self, x, condition, real, dropout=None, sample: bool = False):
        """(reconstruction, μ, log σ²); z is drawn from Flax's stream "latent", or is μ."""
        mean, log_variance = self.encode(x, condition, real, dropout)
        z = mean
        if sample:
            noise = jax.random.normal(self.make_rng("latent"), mean.shape)
            z = mean + jnp.exp(0.5 * log_variance) * noise
        return self.decode(z, condition), mean, log_variance

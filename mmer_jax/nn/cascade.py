"""The imagination cascade: residual autoencoders that turn what is there into what is missing."""

import flax.linen as nn
from jaxtyping import Array, Float

from mmer_jax.nn.layers import Linear, leaky_relu


class Autoencoder(nn.Module):
    """D -> latent -> D; no activation after the latent nor after the output.

    The encoder uses LeakyReLU(0.01), the mirrored decoder ReLU (METHODS §0, ResidualAE).
    """

    layers: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Float[Array, "B D"]) -> tuple[Float[Array, "B D"], Float[Array, "B z"]]:
        dim, last = x.shape[-1], len(self.layers) - 1
        for i, size in enumerate(self.layers):
            x = Linear(size, name=f"encoder{i}")(x)
            x = leaky_relu(x) if i < last else x
        latent = x
        for i, size in enumerate((*self.layers[-2::-1], dim)):
            x = Linear(size, name=f"decoder{i}")(x)
            x = nn.relu(x) if i < last else x
        return x, latent


class InvariantCascade(nn.Module):
    """IF-MMIN's cascade (Zuo et al. 2023, §2.3): the invariant feature enters every block.

    x_0 = embeddings; x_{n+1} = AE_n(x_n + invariant). Returns the imagined embeddings, a
    transition of the last x, and the blocks' latents side by side. The blocks' weights are stacked
    [n_blocks, ...] and scanned over, which compiles a fifth of the program.
    """

    layers: tuple[int, ...]
    n_blocks: int

    @nn.compact
    def __call__(
        self, embeddings: Float[Array, "... D"], invariant: Float[Array, "... D"]
    ) -> tuple[Float[Array, "... D"], Float[Array, "... nz"]]:
        shape, dim = embeddings.shape[:-1], embeddings.shape[-1]
        embeddings, invariant = embeddings.reshape(-1, dim), invariant.reshape(-1, dim)
        blocks = nn.scan(
            lambda autoencoder, x, _: autoencoder(x + invariant),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.n_blocks,
        )
        x, latents = blocks(Autoencoder(self.layers, name="blocks"), embeddings, None)
        imagined = Linear(dim, name="transition1")(nn.relu(Linear(dim, name="transition0")(x)))
        latents = latents.swapaxes(0, 1)  # [blocks, rows, z] -> [rows, blocks, z]
        return imagined.reshape(*shape, dim), latents.reshape(*shape, -1)

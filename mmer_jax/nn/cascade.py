"""The imagination cascade: residual autoencoders that turn what is there into what is missing."""

from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from mmer_jax.nn.layers import Linear, kaiming, leaky_relu, merge_rows


class Autoencoder(nn.Module):
    """D -> latent -> D; no activation after the latent nor after the output.

    The encoder uses LeakyReLU(0.01), the mirrored decoder ReLU (METHODS §0, ResidualAE).

    Attributes:
      layers: sizes of the encoder, the last one the latent's.
      gain: variance of the output over the input's at initialisation, about; None: as released,
        where Kaiming's initialisation, made for layers before a ReLU, quadruples it.
    """

    layers: tuple[int, ...]
    gain: float | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B D"]) -> tuple[Float[Array, "B D"], Float[Array, "B z"]]:
        dim, last = x.shape[-1], len(self.layers) - 1
        inner = [kaiming] * last
        into_latent, into_output = (_init(gain) for gain in (self.gain and 1.0, self.gain))
        for i, (size, init) in enumerate(zip(self.layers, [*inner, into_latent], strict=True)):
            x = Linear(size, kernel_init=init, name=f"encoder{i}")(x)
            x = leaky_relu(x) if i < last else x
        latent, sizes = x, (*self.layers[-2::-1], dim)
        for i, (size, init) in enumerate(zip(sizes, [*inner, into_output], strict=True)):
            x = Linear(size, kernel_init=init, name=f"decoder{i}")(x)
            x = nn.relu(x) if i < last else x
        return x, latent


def _init(gain: float | None):
    """Of a layer that no activation follows."""
    return kaiming if gain is None else nn.initializers.variance_scaling(gain, "fan_in", "normal")


class Cascade(nn.Module):
    """N autoencoders in a row and a transition; what goes on from block to block is the subclass's.

    The blocks' weights are stacked [n_blocks, ...] and scanned over, which compiles a fifth of the
    program.
    """

    layers: tuple[int, ...]
    n_blocks: int
    gain: float | None = None  # of each block

    def _run(
        self,
        block: Callable[[Autoencoder, Array], tuple[Array, Array]],
        first: Float[Array, "... D"],
    ) -> tuple[Float[Array, "... D"], Float[Array, "... nz"]]:
        """(the transition of the last block's result, the blocks' latents side by side)."""
        dim = first.shape[-1]
        rows, restore = merge_rows(first)
        blocks = nn.scan(
            lambda autoencoder, x, _: block(autoencoder, x),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.n_blocks,
        )
        x, latents = blocks(Autoencoder(self.layers, self.gain, name="blocks"), rows, None)
        imagined = Linear(dim, name="transition1")(nn.relu(Linear(dim, name="transition0")(x)))
        latents = latents.swapaxes(0, 1)  # [blocks, rows, z] -> [rows, blocks, z]
        return restore(imagined), restore(latents.reshape(len(latents), -1))


class ResidualCascade(Cascade):
    """MMIN's cascade (Zhao et al. 2021, §3.2): x_0 = embeddings; x_{n+1} = x_n + AE_n(x_n)."""

    @nn.compact
    def __call__(
        self, embeddings: Float[Array, "... D"]
    ) -> tuple[Float[Array, "... D"], Float[Array, "... nz"]]:
        def block(autoencoder, x):
            out, latent = autoencoder(x)
            return x + out, latent

        return self._run(block, embeddings)


class InvariantCascade(Cascade):
    """IF-MMIN's cascade (Zuo et al. 2023, §2.3): the invariant feature enters every block.

    x_0 = embeddings; x_{n+1} = AE_n(x_n + invariant).
    """

    @nn.compact
    def __call__(
        self, embeddings: Float[Array, "... D"], invariant: Float[Array, "... D"]
    ) -> tuple[Float[Array, "... D"], Float[Array, "... nz"]]:
        invariant, _ = merge_rows(invariant)
        return self._run(lambda autoencoder, x: autoencoder(x + invariant), embeddings)

"""What stands after the encoders: the classifier and the modality-invariant encoder."""

import flax.linen as nn
from jaxtyping import Array, Float

from mmer_jax.nn.layers import BatchNorm, Dropout, Linear, leaky_relu, merge_rows


class FcClassifier(nn.Module):
    """(Linear, ReLU[, BatchNorm], dropout) per layer, then Linear to the outputs."""

    layers: tuple[int, ...]
    n_outputs: int
    batch_norm: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "... D"], dropout=None, weights: Float[Array, "..."] | None = None
    ) -> Float[Array, "... C"]:
        """`weights` of the rows: in training, where there is batch normalisation."""
        x, restore = merge_rows(x)
        if weights is not None:
            weights, _ = merge_rows(weights, inner=0)
        for i, size in enumerate(self.layers):
            x = nn.relu(Linear(size, name=f"layer{i}")(x))
            if self.batch_norm:
                x = BatchNorm(name=f"norm{i}")(x, weights)
            x = Dropout()(x, dropout)
        return restore(Linear(self.n_outputs, name="out")(x))


class SharedEncoder(nn.Module):
    """The invariant encoder (Zuo et al. 2023, §2.2): one set of weights for all modalities."""

    @nn.compact
    def __call__(self, x: Float[Array, "... h"]) -> Float[Array, "... h"]:
        size = x.shape[-1]
        x = leaky_relu(Linear(size, name="shared1")(x))
        return leaky_relu(Linear(size, name="shared2")(x))

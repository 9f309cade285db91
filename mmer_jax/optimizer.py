"""Adam as the papers used it: L2 in the gradient, clipping per network, linear decay per epoch."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float


def make_optimizer(*, b1: float, weight_decay: float, clip: float) -> optax.GradientTransformation:
    """Gradient -> direction; the caller multiplies by minus the learning rate.

    Each top-level entry of the parameters (a network) is clipped to the norm `clip` on its own, as
    torch.nn.utils.clip_grad_norm_ does, then L2 weight decay is added, then Adam (not AdamW).
    """
    return optax.chain(
        clip_per_network(clip),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_adam(b1=b1, b2=0.999, eps=1e-8),
    )


def clip_per_network(max_norm: float) -> optax.GradientTransformation:
    """Scale each top-level entry of the gradients to a norm of at most `max_norm`."""

    def clip(network):
        # 1e-6 as in PyTorch, so that the same weights come out.
        scale = max_norm / (optax.tree.norm(network) + 1e-6)
        return jax.tree.map(lambda g: g * jnp.minimum(scale, 1.0), network)

    def update(updates, state, params=None):
        del params
        return {name: clip(network) for name, network in updates.items()}, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def decay_factor(
    epoch: Float[Array, ""] | int, constant_epochs: int, decay_epochs: int
) -> Float[Array, ""]:
    """The learning rate's factor in 0-based `epoch`: 1, then linearly towards 0.

    The last epoch still learns: the released schedule divides by decay_epochs + 1.
    """
    done = jnp.maximum(0.0, epoch + 1.0 - constant_epochs)
    return jnp.maximum(0.0, 1.0 - done / (decay_epochs + 1.0))

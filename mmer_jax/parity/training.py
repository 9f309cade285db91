"""Training from the originals' parameters: loss terms, losses and parameters after some steps."""

from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mmer_jax.methods.stage import Batch, Params
from mmer_jax.optimizer import make_optimizer
from mmer_jax.parity.reference import TOLERANCE, Difference, difference


def compare_training(
    model,
    meta,
    arrays,
    batch: Batch,
    networks: Callable[[str], Params],
    *,
    hyper: Mapping[str, float],
    names: Mapping[str, str],
) -> Iterator[Difference]:
    """Loss terms, the loss before every step and the parameters after the last step.

    Args:
      model: whose `loss` is trained.
      meta, arrays: of the file.
      batch: the one that every step sees.
      networks: the parameters under a prefix of the file's names, as ours.
      hyper: loss weights and dropout rates.
      names: of our loss terms in the file, where they differ.
    """
    params = networks("param")
    setup = meta["optimizer"]
    optimizer = make_optimizer(
        b1=setup["b1"],
        weight_decay=setup["weight_decay_l2"],
        clip=setup["clip_norm_per_network"],
    )
    hypers = {name: jnp.asarray(float(value)) for name, value in hyper.items()}
    state = optimizer.init(params)
    step_fn = jax.jit(
        lambda params: jax.value_and_grad(model.loss, has_aux=True)(
            params, batch, jax.random.key(0), hypers
        )
    )
    for step in range(meta["steps"]):
        (total, terms), gradients = step_fn(params)
        if step == 0:
            for name, ours in (terms | {"total": total}).items():
                key = f"loss/{names.get(name, name)}"
                yield difference(key, ours, arrays[key])
        yield difference(f"loss_curve/{step}", total, arrays[f"loss_curve/{step}"])
        direction, state = optimizer.update(gradients, state, params)
        params = jax.tree.map(lambda p, d: p - setup["lr"] * d, params, direction)
    prefix = f"param_after_{meta['steps']}_steps"
    for network, reference in networks(prefix).items():
        worst = jax.tree.map(lambda a, b: float(np.max(np.abs(a - b))), params[network], reference)
        largest = float(np.max(jax.tree.leaves(worst)))  # unlike max(), keeps a NaN
        yield Difference(f"{prefix}/{network}", largest, TOLERANCE)

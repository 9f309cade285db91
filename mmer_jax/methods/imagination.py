"""What the methods that imagine missing embeddings share: the teacher's target and the error on it.

A frozen full-modality network is asked for every utterance's embeddings once (`Stage.prepare`).
The target of a pattern is its answer to the complement: the modalities that the pattern leaves
out at their true values, the others absent (METHODS §2).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mmer_jax.losses import mean_over_patterns
from mmer_jax.methods.encoding import ModalityEncoders, choose
from mmer_jax.methods.stage import Batch, Params


def teacher_constants(encoders: ModalityEncoders, teacher: Params) -> dict[str, Array]:
    """What `teacher_target` needs beside `frozen["teacher_embeddings"]`."""
    return {"teacher_absent": encoders.absent(teacher)}


def teacher_target(batch: Batch) -> Float[Array, "K B M h"]:
    """The teacher's embeddings of each pattern's complement."""
    complement = batch.present[None] & ~batch.available
    return choose(complement, batch.frozen["teacher_embeddings"], batch.constants["teacher_absent"])


def slot_error(
    values: Float[Array, "K B M h"], goal: Float[Array, "#K B M h"], batch: Batch
) -> Float[Array, ""]:
    """Mean squared error over the modalities that the corpus has; what it lacks is no goal."""
    slots = jnp.where(batch.present[None], batch.pattern_weights[..., None], 0.0)
    error = jnp.mean((values - goal) ** 2, axis=-1)
    return mean_over_patterns(error, slots)

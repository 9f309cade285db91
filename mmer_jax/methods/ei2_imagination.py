"""EI² with imagined embeddings: IF-MMIN's parts (methods/ifmmin.py) before the fusion of a task.

An option (`model.imagination`) that no release has. The first stage trains a SharedEncoder of the
modalities' embeddings as well, pulled together by CMD, and its classifier reads the invariant
features beside the tokens. In the second stage a cascade, with the invariant features fed to each
of its blocks, imagines the embeddings of all modalities; those of what is missing take its place.
The frozen first stage says what is to be imagined.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmer_jax.methods.encoding import ModalityEncoders, choose, flatten
from mmer_jax.methods.imagination import slot_error, teacher_constants, teacher_target
from mmer_jax.methods.stage import Batch, Params
from mmer_jax.nn.cascade import InvariantCascade
from mmer_jax.nn.heads import SharedEncoder


class Imagined(NamedTuple):
    """Of one task under K patterns."""

    embeddings: Float[Array, "K B M h"]
    invariants: Float[Array, "K B M h"]


class Imagination:
    """Of one task; its networks are `<name>_shared` and `<name>_cascade`."""

    def __init__(self, name: str, model, encoders: ModalityEncoders):
        self.name, self.encoders = name, encoders
        self.shared = SharedEncoder()
        self.cascade = InvariantCascade(tuple(model.cascade), model.blocks)
        self.size, self.width = model.embedding, len(encoders.spec.modalities) * model.embedding

    def init_shared(self, key: Array) -> Params:
        return {f"{self.name}_shared": self.shared.init(key, jnp.zeros((1, self.size)))["params"]}

    def init_cascade(self, key: Array) -> Params:
        zeros = jnp.zeros((1, self.width))
        return {f"{self.name}_cascade": self.cascade.init(key, zeros, zeros)["params"]}

    def invariant(self, params: Params, embeddings: Float[Array, "... h"]):
        return self.shared.apply({"params": params[f"{self.name}_shared"]}, embeddings)

    def imagine(self, params: Params, batch: Batch, present, absent) -> Imagined:
        """From the embeddings with and without each modality."""
        embeddings = choose(batch.available, present, absent)
        invariants = choose(
            batch.available, self.invariant(params, present), self.invariant(params, absent)
        )
        with jax.named_scope("cascade"):
            weights = {"params": params[f"{self.name}_cascade"]}
            found, _ = self.cascade.apply(weights, flatten(embeddings), flatten(invariants))
        return Imagined(found.reshape(embeddings.shape), invariants)

    # ---- the frozen first stage ----

    def prepare(self, teacher: Params, batch: Batch) -> dict[str, Array]:
        embeddings, absent = self.encoders(teacher, batch)
        full = choose(batch.present, embeddings, absent)
        return {
            f"{self.name}_embeddings": embeddings,
            f"{self.name}_invariants": self.invariant(teacher, full),
        }

    def constants(self, teacher: Params) -> dict[str, Array]:
        found = teacher_constants(self.encoders, teacher)
        return {f"{self.name}_{name}": value for name, value in found.items()}

    def target(self, batch: Batch) -> Float[Array, "K B M h"]:
        """What the first stage says of each pattern's complement."""
        mine = batch._replace(
            frozen={"teacher_embeddings": batch.frozen[f"{self.name}_embeddings"]},
            constants={"teacher_absent": batch.constants[f"{self.name}_teacher_absent"]},
        )
        return teacher_target(mine)

    def errors(self, found: Imagined, batch: Batch) -> dict[str, Float[Array, ""]]:
        goal = batch.frozen[f"{self.name}_invariants"][None]
        return {
            "imagination": slot_error(found.embeddings, self.target(batch), batch),
            "invariance": slot_error(found.invariants, goal, batch),
        }

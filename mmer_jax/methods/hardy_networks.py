"""The networks of HARDY-MER's stages over dialogues of any modalities (METHODS §6).

Every modality has an encoder of its own (a projection and self-attention over turns). Student and
first stage encode each modality with its own encoder; the teacher's second stage sends each
through the attention of all encoders and adds up. The joint head reads the modalities side by
side, missing ones as zeros.
"""

import itertools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmer_jax.data.corpus import CorpusSpec
from mmer_jax.methods.hardness import information
from mmer_jax.methods.stage import Params
from mmer_jax.nn.dialogue import JointHead, MaskedAttention, TurnEncoder
from mmer_jax.nn.layers import UniformLinear


class HardyNetworks:
    """Modules, and what is computed with their parameters."""

    def __init__(self, model, spec: CorpusSpec):
        """`model` holds embedding, heads, depth and decoder, the width of the decoder."""
        self.names, self.dims = spec.names, tuple(m.dim for m in spec.modalities)
        self.size, self.spec = model.embedding, spec
        self.encoder = TurnEncoder(model.embedding, model.heads, model.depth)
        self.head = UniformLinear(spec.n_outputs)
        self.joint_head = JointHead(spec.n_outputs, sum(self.dims), model.decoder)
        self.cross = MaskedAttention(model.heads, project=True)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Of modalities, both ways round."""
        return list(itertools.permutations(range(len(self.names)), 2))

    def cross_name(self, i: int, j: int) -> str:
        """Of the cross-attention with which modality i reads modality j."""
        return f"cross_{self.names[i]}_{self.names[j]}"

    # ---- initialisation, by what a stage needs ----

    def init_encoders(self, key: Array) -> Params:
        keys, one = jax.random.split(key, len(self.names)), jnp.ones(1, bool)
        return {
            f"encoder_{name}": self.encoder.init(k, jnp.zeros((1, dim)), one)["params"]
            for k, name, dim in zip(keys, self.names, self.dims, strict=True)
        }

    def init_heads(self, key: Array) -> Params:
        """One classifier per modality."""
        keys, x = jax.random.split(key, len(self.names)), jnp.zeros((1, self.size))
        return {
            f"head_{n}": self.head.init(k, x)["params"]
            for n, k in zip(self.names, keys, strict=True)
        }

    def init_cross(self, key: Array) -> Params:
        keys, x = jax.random.split(key, len(self.pairs)), jnp.zeros((1, self.size))
        return {
            self.cross_name(i, j): self.cross.init(k, x, x, jnp.ones(1, bool))["params"]
            for k, (i, j) in zip(keys, self.pairs, strict=True)
        }

    def init_joint(self, key: Array) -> Params:
        x = jnp.zeros((1, len(self.names) * self.size))
        return {"joint": self.joint_head.init(key, x)["params"]}

    # ---- forward ----

    def split(self, features: Float[Array, "... F"]) -> list[Array]:
        """Features side by side -> one array per modality."""
        ends = list(itertools.accumulate(self.dims))
        return jnp.split(features, ends[:-1], axis=-1)

    def encode(
        self,
        params: Params,
        features: Float[Array, "... L F"],
        keys: Bool[Array, "... L M"],
        dropout=None,
        key: Array | None = None,
        *,
        experts: bool = False,
    ) -> Float[Array, "... L M h"]:
        """Every modality of every turn.

        Args:
          params: with the encoders.
          features: the modalities side by side.
          keys: what turns may attend to.
          dropout, key: rate and random key, in training.
          experts: each modality goes through the attention of all encoders, whose outputs add up.
        """
        return jnp.stack(
            [
                self.encode_one(params, m, x, keys[..., m], dropout, key, experts=experts)
                for m, x in enumerate(self.split(features))
            ],
            axis=-2,
        )

    def encode_one(
        self, params: Params, m: int, x, keys, dropout=None, key=None, *, experts: bool = False
    ) -> Float[Array, "... L h"]:
        """Modality m alone: x [..., L, D] under keys [..., L]."""
        through = range(len(self.names)) if experts else (m,)
        rngs = _streams(key, m, 1 + len(through))
        with jax.named_scope(f"encode_{self.names[m]}"):
            projected = self.encoder.apply(
                {"params": params[f"encoder_{self.names[m]}"]},
                *(x, dropout),
                rngs=rngs[0],
                method="project",
            )
            return sum(
                self.encoder.apply(
                    {"params": params[f"encoder_{self.names[e]}"]},
                    *(projected, keys, dropout),
                    rngs=own,
                    method="attend",
                )
                for e, own in zip(through, rngs[1:], strict=True)
            )

    def classify_each(
        self, params: Params, encoded: Float[Array, "... L M h"]
    ) -> Float[Array, "... L M C"]:
        """Each modality's own classifier."""
        logits = [
            self.head.apply({"params": params[f"head_{name}"]}, encoded[..., m, :])
            for m, name in enumerate(self.names)
        ]
        return jnp.stack(logits, axis=-2)

    def joint(
        self, params: Params, encoded: Float[Array, "... L M h"], dropout=None, key=None
    ) -> tuple[Float[Array, "... L C"], Float[Array, "... L F"]]:
        """(logits, reconstructed features); `encoded` is 0 where a modality is missing."""
        flat = encoded.reshape(*encoded.shape[:-2], -1)
        rngs = {} if key is None else {"dropout": key}
        with jax.named_scope("joint"):
            return self.joint_head.apply({"params": params["joint"]}, flat, dropout, rngs=rngs)

    def informations(
        self, params: Params, encoded: Float[Array, "... L M h"], keys: Bool[Array, "... L M"]
    ) -> Float[Array, "... L P"]:
        """I(x; y) of each pair of modalities; the joint representation is what both read."""
        found = []
        for i, j in itertools.combinations(range(len(self.names)), 2):
            x, y = encoded[..., i, :], encoded[..., j, :]
            either = keys[..., i] | keys[..., j]
            with jax.named_scope(f"information_{self.names[i]}_{self.names[j]}"):
                joint = self._read(params, i, j, x, y, either)
                joint += self._read(params, j, i, y, x, either)
                found.append(information(x, y, joint))
        return jnp.stack(found, axis=-1)

    def _read(self, params: Params, i: int, j: int, queries, turns, keys):
        return self.cross.apply({"params": params[self.cross_name(i, j)]}, queries, turns, keys)


def _streams(key: Array | None, m: int, count: int) -> list[dict[str, Array]]:
    """`count` Flax rngs for modality m."""
    if key is None:
        return [{}] * count
    return [{"dropout": k} for k in jax.random.split(jax.random.fold_in(key, m), count)]

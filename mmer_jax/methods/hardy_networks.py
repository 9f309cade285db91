"""The networks of HARDY-MER's stages over dialogues of any modalities (METHODS §6).

Every modality has an encoder of its own (a projection and self-attention over turns). Student and
first stage encode each modality with its own encoder; the teacher's second stage sends each
through the attention of all encoders and adds up. The joint head reads the modalities side by
side, missing ones as zeros.

**Encode once.** Modalities do not see each other before the joint head. So where a pattern is the
same for all turns, what it leaves of a modality is encoded as under full modality, once for all
patterns; only where each turn has a mask of its own (missing rates) every mask is encoded.
"""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mmer_jax.data.corpus import CorpusSpec
from mmer_jax.methods.hardness import information
from mmer_jax.methods.stage import Batch, Params
from mmer_jax.nn.dialogue import JointHead, MaskedAttention, TurnEncoder, UniformLinear


class Turns(NamedTuple):
    """U rows of L turns under K patterns; features are the modalities side by side.

    Attributes:
      segments: which dialogue of its row each turn belongs to.
      features, noisy: zeros where not present; `noisy` stands in for what a pattern takes away.
      patterns: [K, M], what made `available`; None where turns have masks of their own.
    """

    features: Float[Array, "U L F"]
    noisy: Float[Array, "U L F"] | None
    present: Bool[Array, "U L M"]
    available: Bool[Array, "U K L M"]
    patterns: np.ndarray | None
    segments: Int[Array, "U L"]

    @classmethod
    def of(cls, batch: Batch) -> "Turns":
        shape = batch.turns.shape

        def side_by_side(features):
            return jnp.concatenate(list(features.values()), axis=-1).reshape(*shape, -1)

        available = batch.available.reshape(-1, *shape, batch.present.shape[-1])
        return cls(
            side_by_side(batch.features),
            None if batch.noisy is None else side_by_side(batch.noisy),
            batch.present.reshape(*shape, -1),
            jnp.moveaxis(available, 0, 1),
            None if batch.patterns is None else batch.patterns.array(),
            jnp.cumsum(~batch.turns, axis=1),  # an empty place parts two dialogues
        )

    @property
    def keys(self) -> Bool[Array, "U K L M"]:
        """What may be attended to, and read by the joint head."""
        if self.noisy is None:
            return self.available
        return jnp.broadcast_to(self.present[:, None], self.available.shape)


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
        self, params: Params, turns: Turns, dropout=None, key=None, *, experts: bool = False
    ) -> Float[Array, "U K L M h"]:
        """Every modality under every pattern, also those that it takes away.

        Args:
          params: with the encoders.
          turns: the dialogues.
          dropout, key: rate and random key, in training.
          experts: each modality goes through the attention of all encoders, whose outputs add up.
        """
        more = {"dropout": dropout, "key": key, "experts": experts, "segments": turns.segments}
        features = self.split(turns.features)
        noisy = [None] * len(features) if turns.noisy is None else self.split(turns.noisy)
        encoded = []
        for m, (x, other) in enumerate(zip(features, noisy, strict=True)):
            here = turns.present[..., m]
            if turns.patterns is None:
                left = turns.available[..., m, None]
                other = jnp.zeros_like(x) if other is None else other
                x = jnp.where(left, x[:, None], other[:, None])
                encoded.append(self.encode_one(params, m, x, turns.keys[..., m], **more))
                continue
            x = self.encode_one(params, m, x, here, **more)
            if other is None:  # one turn stands for all that are absent
                nothing = jnp.zeros((1, 1, self.dims[m]))
                alone = more | {"segments": None}
                other = self.encode_one(params, m, nothing, jnp.zeros((1, 1), bool), **alone)
            else:
                other = self.encode_one(params, m, other, here, **more)
            chosen = jnp.asarray(turns.patterns[:, m])[None, :, None, None]
            encoded.append(jnp.where(chosen, x[:, None], other[:, None]))
        return jnp.stack(encoded, axis=-2)

    def encode_available(
        self,
        params: Params,
        features: Float[Array, "U K ... L F"],
        keys: Bool[Array, "U K ... L M"],
        patterns: np.ndarray | None,
        segments: Int[Array, "U L"],
        dropout=None,
        key=None,
    ) -> Float[Array, "U K ... L M h"]:
        """Dialogues that differ from pattern to pattern; zeros where a modality is missing.

        With `patterns` [K, M] a modality is encoded under those alone that leave it.
        """
        encoded = []
        for m, x in enumerate(self.split(features)):
            k = slice(None) if patterns is None else np.flatnonzero(patterns[:, m])
            left = self.encode_one(params, m, x[:, k], keys[..., m][:, k], dropout, key, segments)
            zeros = jnp.zeros((*x.shape[:-1], self.size), left.dtype)
            encoded.append(zeros.at[:, k].set(left))
        return jnp.where(keys[..., None], jnp.stack(encoded, axis=-2), 0.0)

    def encode_one(
        self,
        params: Params,
        m: int,
        x: Float[Array, "U ... L D"],
        keys: Bool[Array, "U ... L"],
        dropout=None,
        key=None,
        segments: Int[Array, "U L"] | None = None,
        *,
        experts: bool = False,
    ) -> Float[Array, "U ... L h"]:
        """Modality m alone."""
        through = range(len(self.names)) if experts else (m,)
        rngs = _streams(key, m, 1 + len(through))
        with jax.named_scope(f"encode_{self.names[m]}"):
            projected: Any = self.encoder.apply(
                {"params": params[f"encoder_{self.names[m]}"]},
                *(x, dropout),
                rngs=rngs[0],
                method="project",
            )
            said: Any = [
                self.encoder.apply(
                    {"params": params[f"encoder_{self.names[e]}"]},
                    *(projected, keys, dropout, _like(segments, keys)),
                    rngs=own,
                    method="attend",
                )
                for e, own in zip(through, rngs[1:], strict=True)
            ]
            return sum(said[1:], start=said[0])

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
            found: Any = self.joint_head.apply(
                {"params": params["joint"]}, flat, dropout, rngs=rngs
            )
            return found

    def informations(
        self,
        params: Params,
        encoded: Float[Array, "U ... L M h"],
        keys: Bool[Array, "U ... L M"],
        segments: Int[Array, "U L"],
    ) -> Float[Array, "U ... L P"]:
        """I(x; y) of each pair of modalities; the joint representation is what both read."""
        found = []
        for i, j in itertools.combinations(range(len(self.names)), 2):
            x, y = encoded[..., i, :], encoded[..., j, :]
            either = keys[..., i] | keys[..., j]
            with jax.named_scope(f"information_{self.names[i]}_{self.names[j]}"):
                joint = self._read(params, i, j, x, y, either, segments)
                joint += self._read(params, j, i, y, x, either, segments)
                found.append(information(x, y, joint))
        return jnp.stack(found, axis=-1)

    def _read(self, params: Params, i: int, j: int, queries, turns, keys, segments):
        return self.cross.apply(
            {"params": params[self.cross_name(i, j)]},
            *(queries, turns, keys, None, _like(segments, keys)),
        )


def _like(segments: Int[Array, "U L"] | None, keys: Bool[Array, "U ... L"]):
    """`segments` with axes of size 1 where `keys` has more."""
    if segments is None:
        return None
    return segments.reshape(len(segments), *[1] * (keys.ndim - 2), -1)


def _streams(key: Array | None, m: int, count: int) -> list[dict[str, Array]]:
    """`count` Flax rngs for modality m."""
    if key is None:
        return [{}] * count
    return [{"dropout": k} for k in jax.random.split(jax.random.fold_in(key, m), count)]

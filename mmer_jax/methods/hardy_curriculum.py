"""HARDY-MER's curriculum over a corpus: what the frozen stages say, and what follows from it.

`prepare` asks the frozen stages about every utterance, `survey` makes of all utterances of a fold
together their hardness and their neighbours, and `copies` lays those out in a batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from mmer_jax.data.missing import full_pattern, missing_patterns
from mmer_jax.methods.curriculum import curriculum, union
from mmer_jax.methods.hardness import hardness, reconstruction_error
from mmer_jax.methods.hardy_networks import HardyNetworks, Turns
from mmer_jax.methods.stage import Batch, Params, Tensors
from mmer_jax.retrieval import top_k

STUDIED = 5  # of each modality's neighbours, at least, whatever K
RANDOM_AT_ONCE = 256  # utterances whose random neighbours are drawn at a time


class Copies(NamedTuple):
    """U dialogues under K patterns, each in C versions made of its utterances' neighbours."""

    features: Float[Array, "U K C L F"]
    present: Bool[Array, "U K C L M"]
    available: Bool[Array, "U K C L M"]
    labels: Num[Array, "U K C L"]


class Curriculum:
    """By `config.model.curriculum`; `query_labels`: copies have their utterance's labels."""

    def __init__(self, settings, networks: HardyNetworks, *, query_labels: bool):
        self.settings, self.networks, self.query_labels = settings, networks, query_labels
        n_modalities = len(networks.names)
        # What an utterance may have left, P of them; hardness and neighbours depend on it.
        self.subsets = np.concatenate([missing_patterns(n_modalities), full_pattern(n_modalities)])
        codes = self.subsets @ (1 << np.arange(n_modalities))
        self._place = np.zeros(1 << n_modalities, np.int32)
        self._place[codes] = np.arange(len(codes))

    # ---- once per stage ----

    def prepare(self, earlier: dict[str, Params], batch: Batch) -> Tensors:
        """Of each utterance what its dialogue tells, [B, ...]; features are as in training."""
        left = jnp.asarray(self.subsets)[:, None] & batch.present[None]
        turns = Turns.of(batch._replace(available=left))._replace(patterns=self.subsets)
        found = {
            "features": turns.features.reshape(len(batch.labels), -1),
            "labels": batch.labels[:, 0],
            "present": batch.present,
        }
        if self.settings.retrieval == "encodings":
            full = turns._replace(available=turns.available[:, -1:], patterns=self.subsets[-1:])
            encoded = self.networks.encode(earlier["hardy_unimodal"], full)[:, 0]
            found["encodings"] = encoded.reshape(len(batch.labels), *encoded.shape[-2:])
        if self.settings.hardness != "off":
            found |= self._views(earlier["hardy_teacher"], turns)
        return found

    def _views(self, teacher: Params, turns: Turns) -> Tensors:
        """Direct and indirect hardness [B, P], unscaled."""
        networks = self.networks
        encoded = networks.encode(teacher, turns, experts=True)
        _, reconstructed = networks.joint(teacher, jnp.where(turns.keys[..., None], encoded, 0.0))
        missing = turns.present[:, None] & ~turns.available
        truth = jnp.broadcast_to(turns.features[:, None], reconstructed.shape)
        direct = reconstruction_error(reconstructed, truth, missing, dims=networks.dims)
        informations = networks.informations(teacher, encoded, turns.keys, turns.segments)
        views = {
            "direct": direct / len(networks.dims),
            "indirect": informations.sum(axis=-1),
        }
        return {
            name: jnp.moveaxis(x, 1, 2).reshape(-1, len(self.subsets)) for name, x in views.items()
        }

    def survey(
        self, frozen: Tensors, database: Bool[Array, " N"], key: Array
    ) -> tuple[Tensors, Tensors]:
        """(of each utterance its neighbours and hardness, the database that they are rows of).

        Args:
          frozen: what `prepare` said, [N, ...].
          database: the fold's training utterances: neighbours are among them, and hardness is
            scaled over them. Of others nothing is kept.
          key: for random neighbours.
        """
        present, own = frozen["present"], jnp.arange(len(database))
        available = jnp.asarray(self.subsets)[None] & present[:, None]
        scaled = self._hardness(frozen, database, available)
        nearest = jnp.stack(self._nearest(frozen, database, own, key), axis=1)  # [N, M, n]
        first = jnp.broadcast_to(own[:, None, None], (*nearest.shape[:2], 1))
        lists = jnp.concatenate([first, nearest[..., : self.settings.k]], axis=-1)
        rows = curriculum(
            jnp.broadcast_to(lists[:, None], (*scaled.shape, *lists.shape[1:])),
            available,
            scaled,
            self.settings.k,
        )[..., 1:]
        rows = jnp.where(rows == own[:, None, None], -1, rows)
        kept = {
            name: jnp.where(database.reshape(-1, *[1] * (frozen[name].ndim - 1)), frozen[name], 0)
            for name in ("features", "labels", "present")
        }
        views = {name: frozen[name] for name in ("direct", "indirect") if name in frozen}
        return {"neighbours": rows, "hardness": scaled, "nearest": nearest} | views, kept

    def _hardness(self, frozen: Tensors, database, available) -> Float[Array, "N P"]:
        settings = self.settings
        if settings.hardness == "off":  # as many as there are: ⌊H·K + 1⌋ = K
            return jnp.full(available.shape[:2], (settings.k - 0.5) / settings.k)

        def of_subset(direct, indirect, available):
            return hardness(
                direct,
                indirect,
                database & available.any(axis=-1),
                alpha_direct=0.0 if settings.hardness == "indirect" else settings.alpha_direct,
                alpha_indirect=0.0 if settings.hardness == "direct" else settings.alpha_indirect,
                beta=settings.beta,
            )

        of_each = jax.vmap(of_subset, in_axes=1, out_axes=1)
        return of_each(frozen["direct"], frozen["indirect"], available)

    def _nearest(self, frozen: Tensors, database, own, key) -> list[Int[Array, "N n"]]:
        """Of each modality the nearest training utterances that have it; -1: no more."""
        k, found = max(self.settings.k, STUDIED), []
        for m, name in enumerate(self.networks.names):
            valid = database & frozen["present"][:, m]
            with jax.named_scope(f"nearest_{name}"):
                if self.settings.retrieval == "random":
                    found.append(_random(jax.random.fold_in(key, m), valid, k))
                    continue
                if self.settings.retrieval == "encodings":
                    space = frozen["encodings"][:, m]
                else:
                    space = self.networks.split(frozen["features"])[m]
                metric = "cosine" if name.startswith("text") else "l2"
                found.append(top_k(space, space, k, metric=metric, exclude=own, valid=valid).rows)
        return found

    def study(self, batch: Batch) -> Tensors:
        """Neighbours by the available modalities, however hard, and hardness with its two views."""
        nearest = batch.frozen["nearest"][None]
        lists = jnp.broadcast_to(nearest, (len(batch.available), *nearest.shape[1:]))
        found = {"neighbours": union(lists, batch.available)[..., : nearest.shape[-1]]}
        if self.settings.hardness == "off":
            return found
        place, left = self._subset(batch).T, batch.available.any(axis=-1)
        for name in ("hardness", "direct", "indirect"):
            of_pattern = jnp.take_along_axis(batch.frozen[name], place, axis=1).T
            found[name] = jnp.where(left, of_pattern, jnp.nan)
        return found

    def _subset(self, batch: Batch) -> Int[Array, "K B"]:
        """Which of `subsets` utterances have left under each pattern; 0 where they have nothing."""
        code = batch.available @ (1 << np.arange(len(self.networks.names)))
        return jnp.asarray(self._place)[code]

    # ---- in every step ----

    def copies(self, batch: Batch, turns: Turns) -> Copies:
        """The K copies of a training batch.

        Only utterances that count and have something left are replaced.
        """
        place = self._subset(batch).T  # [B, K]
        rows = jnp.take_along_axis(batch.frozen["neighbours"], place[..., None], axis=1)
        replaced = (batch.weights[:, None] > 0) & batch.available.any(axis=-1).T
        rows = jnp.where(replaced[..., None], rows, -1)
        rows = rows.reshape(*batch.turns.shape, *rows.shape[1:])  # [U, L, K, C]
        rows = jnp.transpose(rows, (0, 2, 3, 1))
        itself = rows < 0

        def replace(own, name):
            found = batch.constants[name][jnp.maximum(rows, 0)]
            same = itself.reshape(*itself.shape, *[1] * (found.ndim - itself.ndim))
            return jnp.where(same, own[:, None, None], found)

        labels = batch.labels[:, 0].reshape(batch.turns.shape)
        present = replace(turns.present, "present")
        left = turns.available
        if turns.patterns is not None:  # of a neighbour that has more than the utterance, too
            left = jnp.asarray(turns.patterns)[None, :, None]
        return Copies(
            features=replace(turns.features, "features"),
            present=present,
            available=left[:, :, None] & present,
            labels=jnp.broadcast_to(labels[:, None, None], rows.shape)
            if self.query_labels
            else replace(labels, "labels"),
        )


def _random(key: Array, valid: Bool[Array, " N"], k: int) -> Int[Array, "N k"]:
    """K different rows that are valid for each row, none of them the row itself."""
    count = len(valid)

    def of_row(row):
        score = jax.random.uniform(jax.random.fold_in(key, row), (count,))
        score = jnp.where(valid & (jnp.arange(count) != row), score, -1.0)
        best, rows = jax.lax.top_k(score, min(k, count))
        rows = jnp.where(best >= 0, rows, -1)
        return jnp.pad(rows, (0, k - len(rows)), constant_values=-1)

    return jax.lax.map(of_row, jnp.arange(count), batch_size=RANDOM_AT_ONCE)

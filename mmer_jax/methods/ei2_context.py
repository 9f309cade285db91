"""The turns before an utterance, as EI² reads them: a context vector for each modality.

A unit of its second stage is an utterance, the last of L rows, with the H = L - 1 turns before it
(data/units.py). Only the last row has outputs.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmer_jax.data.corpus import CorpusSpec, Modality
from mmer_jax.methods.encoding import choose
from mmer_jax.methods.stage import Batch, Params
from mmer_jax.nn.context import ContextEncoder


def last_of_units(batch: Batch) -> Batch:
    """The utterances alone, without the turns before."""
    units, length = batch.turns.shape

    def last(x):
        return x.reshape(units, length, *x.shape[1:])[:, -1]

    rows = ("features", "lengths", "present", "labels", "weights", "noisy", "frozen", "speakers")
    own = {name: jax.tree.map(last, getattr(batch, name)) for name in rows}
    n_patterns, _, n_modalities = batch.available.shape
    available = batch.available.reshape(n_patterns, units, length, n_modalities)[:, :, -1]
    return batch._replace(**own, turns=batch.turns[:, -1:], available=available)


def of_all_rows(values: Float[Array, "K U ..."], length: int) -> Float[Array, "K B ..."]:
    """What `last_of_units` led to, in the places of the utterances; zeros for the turns before."""
    before = ((0, 0), (0, 0), (length - 1, 0))
    whole = jnp.pad(values[:, :, None], [*before, *[(0, 0)] * (values.ndim - 2)])
    return whole.reshape(len(values), -1, *values.shape[2:])


class DialogueContext:
    """The context encoder and what it is given under missing patterns.

    A pattern takes a modality away from the utterance; with `model.history_missing` from the turns
    before as well. Where noise stands in for what is missing, it reaches the utterance alone.
    """

    def __init__(self, config, spec: CorpusSpec):
        self.spec = spec
        self.encoder = ContextEncoder(
            config.model.embedding, config.model.context_layers, spec.n_speakers
        )
        self.pad_masking = config.quirks.pad_masking
        self.history_missing = config.model.history_missing

    def init(self, key: Array) -> Params:
        shapes = {m.name: (1, 1, m.max_steps or 1, m.dim) for m in self.spec.modalities}
        features = {name: jnp.zeros(shape) for name, shape in shapes.items()}
        valid = {name: jnp.ones(shape[:3], bool) for name, shape in shapes.items()}
        one = jnp.ones((1, 1), bool)
        return self.encoder.init(key, features, valid, jnp.zeros((1, 1), int), one)["params"]

    def __call__(
        self, params: Params, batch: Batch, dropout=None, key: Array | None = None
    ) -> Float[Array, "K U M h"]:
        """Under the batch's patterns."""
        shape = (*batch.turns.shape, len(self.spec.modalities))
        available = batch.available.reshape(-1, *shape)
        present = batch.present.reshape(shape)
        history_missing = self.history_missing and batch.noisy is None
        if history_missing and batch.patterns is None:  # every turn has masks of its own
            return self._encode(params, batch, available, dropout, key)
        without = jnp.zeros_like(present) if history_missing else present.at[:, -1].set(False)
        if batch.noisy is not None:
            without = present
        both = self._encode(params, batch, jnp.stack([present, without]), dropout, key)
        left = available[:, :, -1]
        if batch.patterns is not None:  # what an utterance never had, the turns before may have had
            left = jnp.broadcast_to(jnp.asarray(batch.patterns.array())[:, None], left.shape)
        return choose(left, both[0], both[1])

    def _encode(
        self, params: Params, batch: Batch, there: Bool[Array, "V U L M"], dropout, key
    ) -> Float[Array, "V U M h"]:
        """Contexts of V variants of what is there; where there is noise, of the second of two."""
        variants, (units, length) = len(there), batch.turns.shape
        features, valid = {}, {}
        for i, m in enumerate(self.spec.modalities):
            x = self._turns(batch.features[m.name], batch, m)
            if batch.noisy is None:
                x = jnp.broadcast_to(x, (variants, *x.shape))
            else:
                noisy = self._turns(batch.noisy[m.name], batch, m)
                x = jnp.stack([x, x.at[:, -1].set(noisy[:, -1])])
            mine = there[..., i] & batch.turns[None]
            steps = jnp.ones((*mine.shape, x.shape[3]), bool)
            if self.pad_masking:
                steps = jnp.broadcast_to(mine[..., None], steps.shape)
                if m.is_sequence:
                    lengths = batch.lengths[m.name].reshape(1, units, length, 1)
                    steps &= jnp.arange(x.shape[3]).reshape(1, 1, 1, -1) < lengths
            x = jnp.where(mine[..., None, None], x, 0.0)
            features[m.name] = x.reshape(-1, *x.shape[2:])
            valid[m.name] = steps.reshape(-1, *steps.shape[2:])
        shape = (variants, units, length)
        turns = batch.turns if self.pad_masking else jnp.ones_like(batch.turns)
        assert batch.speakers is not None
        whole = (jnp.broadcast_to(x.reshape(units, length), shape) for x in (batch.speakers, turns))
        speakers, turns = (x.reshape(-1, length) for x in whole)
        with jax.named_scope("context"):
            contexts: Any = self.encoder.apply(
                {"params": params},
                features,
                valid,
                speakers,
                turns,
                dropout,
                rngs={} if key is None else {"dropout": key},
            )
        return contexts.reshape(variants, units, *contexts.shape[1:])

    def _turns(self, x: Float[Array, "B ..."], batch: Batch, m: Modality):
        """[U, L, T, D]; a vector is one step."""
        return x.reshape(*batch.turns.shape, -1, m.dim)

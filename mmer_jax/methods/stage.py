"""The contract between a method and the engine: what a batch holds and what a stage provides.

A method is a sequence of stages, `stages(config, spec) -> tuple[Stage, ...]`. The engine trains
them in order, each from the best epoch of the ones before, and vmaps everything here over trials,
so that a stage sees one trial: its parameters, its batch, its hyper-parameters.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from mmer_jax.config import is_hyper

Params = dict[str, Any]  # network name -> its parameters; gradients are clipped per network
Hyper = Mapping[str, Float[Array, ""]]
Tensors = dict[str, Array]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Patterns:
    """K patterns that are the same for every utterance: part of a program, not of its data."""

    each: tuple[tuple[bool, ...], ...]

    @classmethod
    def of(cls, patterns: np.ndarray) -> "Patterns":
        """`patterns` [K, M]."""
        return cls(tuple(tuple(bool(there) for there in pattern) for pattern in patterns))

    def array(self) -> np.ndarray:
        """[K, M] bool."""
        return np.array(self.each, bool)


class Batch(NamedTuple):
    """B utterances under K patterns: U units of L rows each, one after the other, B = U·L.

    Attributes:
      features: name -> [B, D] or [B, T, D], normalised; zeros where padded or not present.
      lengths: sequence modality -> [B] valid steps, at least 1.
      present: [B, M], what the corpus has of each utterance; nothing where there is none.
      labels: [B, tasks], int32 classes (-1: none) or float32.
      weights: [B], 1, or 0 where there is no utterance, or one that is context alone.
      turns: [U, L], whether there is an utterance. L is 1 where units are utterances.
      available: [K, B, M], what each pattern leaves; never more than `present`.
      patterns: what made `available`, where that is the same for every utterance; else None.
      noisy: as `features`, under noise: stands in for what a pattern takes away. None: nothing
        does, it is absent.
      frozen: this batch's rows of what `Stage.prepare`, `Stage.survey` and `Stage.relate` returned.
      constants: what `Stage.constants` and `Stage.survey` returned, and the "database" of a stage
        with `relate`.
      rows: [B] of the corpus; -1: of none (a new utterance, or what fills up the last batch).
      speakers: numbered within the dialogue (data/speakers.py), where there is a history.
    """

    features: dict[str, Float[Array, "B ..."]]
    lengths: dict[str, Int[Array, " B"]]
    present: Bool[Array, "B M"]
    labels: Num[Array, "B tasks"]
    weights: Float[Array, " B"]
    turns: Bool[Array, "U L"]
    available: Bool[Array, "K B M"]
    patterns: Patterns | None
    noisy: dict[str, Float[Array, "B ..."]] | None
    frozen: dict[str, Float[Array, "B ..."]]
    constants: dict[str, Any]
    rows: Int[Array, " B"] | None = None
    speakers: Int[Array, " B"] | None = None

    @property
    def pattern_weights(self) -> Float[Array, "K B"]:
        """`weights` of each pattern; 0 where it leaves an utterance nothing."""
        return jnp.where(self.available.any(axis=-1), self.weights[None], 0.0)


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training stage.

    Attributes:
      name: key of its section in `config.stages`, and of its checkpoint.
      settings: that section: batch_size, epochs, optimiser.
      patterns: "full" trains and selects on all that is present, "missing" on the patterns.
      init: (key, earlier) -> params; `earlier` maps stage names to their best parameters.
      loss: (params, batch, key, hyper) -> (scalar, metrics of unweighted terms). Networks with
        running statistics keep them in params["statistics"], which no gradient changes, and
        return the new ones among the metrics under the same name.
      predict: (params, batch) -> [K, B, C] logits, of several tasks side by side, or [K, B, 1]
        for a real-valued label.
      unit: "utterance", "dialogue" or "history", an utterance after the turns before it: what
        `batch_size` counts and a batch holds U of.
      history: how many turns before, of unit "history".
      history_missing: whether a prediction depends on what these have left under a pattern.
      prepare: (earlier, batch) -> per-utterance tensors [B, ...], computed once per stage.
      survey: (what `prepare` returned of the whole corpus, [N, ...]; which rows are the fold's
        training utterances, [N]; key) -> (what takes its place, further constants), once per stage:
        for what training utterances only tell together.
      constants: earlier -> tensors that are the same for every utterance, computed once.
      relate: batch -> further per-utterance tensors [B, ...], from batch.frozen and
        batch.constants["database"]: what `prepare` says of R utterances, the trial's training rows
        and the unlabelled ones, each tensor [R, ...], with "row" [R] (`own_places` reads it).
        Zeros fill up. None: utterances are not related.
      recalls: `predict` reads batch.frozen or batch.constants. Then `prepare` and `relate` are
        asked about new utterances, too, for which the database is kept in the workdir.
      refresh_epochs: after every so many of its epochs `prepare` and `relate` are asked again, with
        the parameters that the stage has by then as earlier[name], which are its first ones until
        then. Predictions have a database by its best parameters. 0: never, and no earlier[name].
      imagine: (params, batch) -> what is imagined and the teacher's answer, [K, B, M, h] each, of
        which the slots count that a pattern takes away; None where nothing is imagined.
      invariants: (params, batch) -> [B, M, h] modality-invariant features of what is present, for
        the report's picture; None where a method has none.
      study: batch -> what hardness.csv tells of utterances under each pattern, from batch.frozen
        and batch.constants: "neighbours" [K, B, n], nearest first, rows of the corpus (-1: none,
        OTHER - i: the unlabelled utterance i), and measures [K, B] by name, not finite where there
        is none. None: there is nothing to study.
    """

    name: str
    settings: Any
    patterns: str
    init: Callable[[Array, dict[str, Params]], Params]
    loss: Callable[[Params, Batch, Array, Hyper], tuple[Float[Array, ""], dict[str, Array]]]
    predict: Callable[[Params, Batch], Float[Array, "K B C"]]
    unit: str = "utterance"
    history: int = 0
    history_missing: bool = False
    prepare: Callable[[dict[str, Params], Batch], dict[str, Array]] = lambda earlier, batch: {}
    survey: Callable[[Tensors, Bool[Array, " N"], Array], tuple[Tensors, Tensors]] | None = None
    constants: Callable[[dict[str, Params]], dict[str, Any]] = lambda earlier: {}
    relate: Callable[[Batch], dict[str, Array]] | None = None
    recalls: bool = False
    refresh_epochs: int = 0
    imagine: (
        Callable[[Params, Batch], tuple[Float[Array, "K B M h"], Float[Array, "K B M h"]]] | None
    ) = None
    invariants: Callable[[Params, Batch], Float[Array, "B M h"]] | None = None
    study: Callable[[Batch], Tensors] | None = None

    @property
    def hyper(self) -> dict[str, float]:
        """The settings that may differ per trial: learning rate, dropout rates, loss weights."""
        return {k: float(v) for k, v in self.settings.items() if is_hyper(k)}


# In a database's "row", which ascends: an unlabelled utterance, no utterance, none at the end.
OTHER, EMPTY, FILLING = -2, -1, 2**31 - 1


def own_places(batch: Batch) -> Int[Array, " B"]:
    """Where in the database each utterance of the batch stands; -1: nowhere."""
    assert batch.rows is not None
    stored = batch.constants["database"]["row"]
    place = jnp.minimum(jnp.searchsorted(stored, batch.rows), len(stored) - 1)
    return jnp.where((stored[place] == batch.rows) & (batch.rows >= 0), place, -1)

"""The contract between a method and the engine: what a batch holds and what a stage provides.

A method is a sequence of stages, `stages(config, spec) -> tuple[Stage, ...]`. The engine trains
them in order, each from the best epoch of the ones before, and vmaps everything here over trials,
so that a stage sees one trial: its parameters, its batch, its hyper-parameters.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from mmer_jax.config import is_hyper

Params = dict[str, Any]  # network name -> its parameters; gradients are clipped per network
Hyper = Mapping[str, Float[Array, ""]]


class Batch(NamedTuple):
    """B utterances under K patterns.

    Attributes:
      features: name -> [B, D] or [B, T, D], normalised; zeros where padded or not present.
      lengths: sequence modality -> [B] valid steps, at least 1.
      present: [B, M], what the corpus has of each utterance.
      labels: [B], int32 classes or float32.
      weights: [B], 1, or 0 for the rows that fill up the last batch.
      available: [K, B, M], what each pattern leaves; never more than `present`.
      noisy: as `features`, under noise: stands in for what a pattern takes away. None: nothing
        does, it is absent.
      frozen: this batch's rows of what `Stage.prepare` and `Stage.relate` returned.
      constants: what `Stage.constants` returned, and the "database" of a stage with `relate`.
      rows: [B] of the corpus; -1: of none (a new utterance, or what fills up the last batch).
    """

    features: dict[str, Float[Array, "B ..."]]
    lengths: dict[str, Int[Array, " B"]]
    present: Bool[Array, "B M"]
    labels: Num[Array, " B"]
    weights: Float[Array, " B"]
    available: Bool[Array, "K B M"]
    noisy: dict[str, Float[Array, "B ..."]] | None
    frozen: dict[str, Float[Array, "B ..."]]
    constants: dict[str, Any]
    rows: Int[Array, " B"] | None = None

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
      predict: (params, batch) -> [K, B, C] logits, or [K, B, 1] for a real-valued label.
      prepare: (earlier, batch) -> per-utterance tensors [B, ...], computed once per stage.
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
    """

    name: str
    settings: Any
    patterns: str
    init: Callable[[Array, dict[str, Params]], Params]
    loss: Callable[[Params, Batch, Array, Hyper], tuple[Float[Array, ""], dict[str, Array]]]
    predict: Callable[[Params, Batch], Float[Array, "K B C"]]
    prepare: Callable[[dict[str, Params], Batch], dict[str, Array]] = lambda earlier, batch: {}
    constants: Callable[[dict[str, Params]], dict[str, Any]] = lambda earlier: {}
    relate: Callable[[Batch], dict[str, Array]] | None = None
    recalls: bool = False
    refresh_epochs: int = 0
    imagine: (
        Callable[[Params, Batch], tuple[Float[Array, "K B M h"], Float[Array, "K B M h"]]] | None
    ) = None
    invariants: Callable[[Params, Batch], Float[Array, "B M h"]] | None = None

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

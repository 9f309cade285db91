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
      labels: [B], int32 classes or float32.
      weights: [B], 1, or 0 where there is no utterance, or one that is context alone.
      turns: [U, L], whether there is an utterance. L is 1 where units are utterances.
      available: [K, B, M], what each pattern leaves; never more than `present`.
      patterns: what made `available`, where that is the same for every utterance; else None.
      noisy: as `features`, under noise: stands in for what a pattern takes away. None: nothing
        does, it is absent.
      frozen: this batch's rows of what `Stage.prepare`, or `Stage.relate`, returned.
      constants: what `Stage.constants` and `Stage.relate` returned.
    """

    features: dict[str, Float[Array, "B ..."]]
    lengths: dict[str, Int[Array, " B"]]
    present: Bool[Array, "B M"]
    labels: Num[Array, " B"]
    weights: Float[Array, " B"]
    turns: Bool[Array, "U L"]
    available: Bool[Array, "K B M"]
    patterns: Patterns | None
    noisy: dict[str, Float[Array, "B ..."]] | None
    frozen: dict[str, Float[Array, "B ..."]]
    constants: dict[str, Array]

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
      unit: "utterance" or "dialogue": what `batch_size` counts and a batch holds U of.
      prepare: (earlier, batch) -> per-utterance tensors [B, ...], computed once per stage.
      relate: (what `prepare` returned of the whole corpus, [N, ...]; which rows are the fold's
        training utterances, [N]; key) -> (what takes its place, further constants), once per stage.
      constants: earlier -> tensors that are the same for every utterance, computed once.
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
    unit: str = "utterance"
    prepare: Callable[[dict[str, Params], Batch], dict[str, Array]] = lambda earlier, batch: {}
    relate: Callable[[Tensors, Bool[Array, " N"], Array], tuple[Tensors, Tensors]] | None = None
    constants: Callable[[dict[str, Params]], dict[str, Array]] = lambda earlier: {}
    imagine: (
        Callable[[Params, Batch], tuple[Float[Array, "K B M h"], Float[Array, "K B M h"]]] | None
    ) = None
    invariants: Callable[[Params, Batch], Float[Array, "B M h"]] | None = None

    @property
    def hyper(self) -> dict[str, float]:
        """The settings that may differ per trial: learning rate, dropout rates, loss weights."""
        return {k: float(v) for k, v in self.settings.items() if is_hyper(k)}

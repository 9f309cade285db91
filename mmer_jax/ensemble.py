"""The program of a prediction: what each member of an ensemble says, and their mean.

A pure function of numbers, which predictor.py compiles and export.py writes to a file.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmer_jax.data.corpus import CorpusSpec
from mmer_jax.data.feed import Resident
from mmer_jax.data.missing import full_pattern
from mmer_jax.methods.stage import Stage
from mmer_jax.programs import TrialData, in_label_units, make_batch, recalled
from mmer_jax.trained import Weights


def ensemble_outputs(
    stage: Stage,
    spec: CorpusSpec,
    weights: Weights,
    features: dict[str, Float[Array, "B ..."]],
    lengths: dict[str, Int[Array, " B"]],
    present: Bool[Array, "B M"],
    turns: Bool[Array, "U L"],
    speakers: Int[Array, " B"] | None = None,
) -> tuple[Float[Array, "B C"], Float[Array, "E B C"]]:
    """(the ensemble's outputs, each member's) of a batch.

    Args:
      stage, spec: what predicts, static.
      weights: as of `TrainedRun`, each leaf [E, ...].
      features: by modality [B, D] or [B, T, D], in the units of the feature files; of what is
        absent or padded anything.
      lengths: of each sequence modality, valid steps, at least 1.
      present: which modalities an utterance has, in the order of `spec`.
      turns: B = U·L, units of L utterances, and which of these there are; L is 1 unless the method
        reads dialogues or histories.
      speakers: numbered within the dialogue, for a method that reads histories.

    Returns:
      Probabilities of each task's classes, averaged over members, the tasks side by side; or
      [.., 1] values in the label's unit.
      NaN for an utterance that has nothing: no model has seen such a one.
    """
    rows = jnp.where(turns, jnp.arange(present.shape[0]).reshape(turns.shape), -1)
    dtype = jnp.int32 if spec.is_classification else jnp.float32
    labels = jnp.zeros((present.shape[0], len(spec.tasks)), dtype)
    resident = Resident(features, lengths, present, labels, speakers)
    pattern = full_pattern(len(spec.modalities))  # all that is present

    def one_member(mine: Weights):
        earlier, constants = mine.get("earlier", {}), {}
        if stage.recalls:
            constants = stage.constants(earlier) | {"database": mine.get("database")}
        trial = TrialData(
            key=None,
            mean=mine["mean"],
            std=mine["std"],
            label_mean=mine["label_mean"],
            label_std=mine["label_std"],
            clip=mine["clip"],
            rate=None,
            hyper={},
            frozen={},
            constants=constants,
        )
        batch = make_batch(spec, resident, trial, rows, rows, turns, pattern)
        # These are no rows of the training corpus.
        batch = batch._replace(rows=jnp.full_like(batch.rows, -1))
        batch = recalled(stage, earlier, batch)
        return in_label_units(spec, stage.predict(mine["params"], batch)[0], trial)

    # A CPU is full with one member, whose intermediate results then stay in its cache.
    outputs = jax.lax.platform_dependent(
        weights, cpu=functools.partial(jax.lax.map, one_member), default=jax.vmap(one_member)
    )
    if spec.is_classification:
        outputs = jnp.concatenate([jax.nn.softmax(x) for x in spec.split(outputs)], axis=-1)
    outputs = jnp.where(present.any(axis=1)[None, :, None], outputs, jnp.nan)
    return outputs.mean(axis=0), outputs

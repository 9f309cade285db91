"""The compiled programs of a stage: train and select for an epoch, prepare, predict.

Everything carries a leading trial axis T. A program sees a `Piece` of the corpus; with a
device-resident corpus an epoch (all its steps, validation over all patterns, best-epoch selection)
is one program without a word to the host.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from mmer_jax import mesh as mesh_lib
from mmer_jax import metrics
from mmer_jax.data.corpus import CorpusSpec
from mmer_jax.data.feed import Feed, Piece, Resident
from mmer_jax.data.missing import full_pattern, training_patterns
from mmer_jax.data.noise import Corruption, Noise, add_noise
from mmer_jax.data.units import Units
from mmer_jax.divergence import NOT_FINITE
from mmer_jax.methods.stage import (
    EMPTY,
    FILLING,
    OTHER,
    Batch,
    Hyper,
    Params,
    Patterns,
    Stage,
)
from mmer_jax.optimizer import decay_factor, make_optimizer


class TrainState(NamedTuple):
    """What training changes; each leaf [T, ...]."""

    params: Params
    optimizer: optax.OptState
    step: Int[Array, " T"]  # finished updates
    best_params: Params
    best_score: Float[Array, " T"]  # on validation, as of `metrics.score`
    best_epoch: Int[Array, " T"]  # 0-based; -1: none yet


class TrainSums(NamedTuple):
    """What the steps of an epoch add up to; each leaf [T]."""

    totals: dict[str, Float[Array, " T"]]  # of every term of the loss, and the number of steps
    first_bad: dict[str, Int[Array, " T"]]  # the first update at which it was not finite, or NEVER


class TrialData(NamedTuple):
    """What training reads and never changes; each leaf [T, ...]."""

    key: Array
    mean: dict[str, Float[Array, "T D"]]
    std: dict[str, Float[Array, "T D"]]
    label_mean: Float[Array, " T"]  # of real-valued labels; networks work in standardised ones
    label_std: Float[Array, " T"]
    clip: Float[Array, " T"]  # of normalised features, in standard deviations; may be infinite
    rate: Float[Array, "T 2"]  # the range that training draws its missing rate from
    hyper: Hyper
    frozen: dict[str, Float[Array, "T N ..."]]
    constants: dict[str, Any]
    earlier: dict[str, Params] = {}  # for predictions of a stage that recalls


def make_batch(
    spec: CorpusSpec,
    resident: Resident,
    trial: TrialData,
    slots: Int[Array, "U L"],
    rows: Int[Array, "U L"],
    counted: Bool[Array, "U L"],
    patterns: np.ndarray,
    noise: Noise | None = None,
) -> Batch:
    """The batch of one trial: gathered, normalised by its fold, under the patterns [K, M].

    With `noise` [U·L] what a pattern takes away is noised instead of absent. Real-valued labels are
    standardised as well, or the loss terms' weights would depend on the label's unit;
    `in_label_units` leads back.
    """
    turns = rows >= 0
    slots, rows = jnp.maximum(slots.reshape(-1), 0), jnp.maximum(rows.reshape(-1), 0)
    present = resident.present[slots] & turns.reshape(-1, 1)
    features, lengths, noisy = {}, {}, {}
    for i, m in enumerate(spec.modalities):
        x = resident.features[m.name][slots].astype(jnp.float32)
        mean, std = (jnp.expand_dims(s[m.name], range(x.ndim - 1)) for s in (trial.mean, trial.std))
        x = (x - mean) / std
        x = jnp.clip(x, -trial.clip, trial.clip)
        usable = present[:, i]
        if m.is_sequence:
            lengths[m.name] = resident.lengths[m.name][slots]
            usable = usable[:, None] & (jnp.arange(x.shape[1])[None] < lengths[m.name][:, None])
        features[m.name] = jnp.where(usable[..., None], x, 0.0)
        if noise is not None:
            noisy[m.name] = jnp.where(usable[..., None], add_noise(noise, x, i), 0.0)
    labels = resident.labels[slots]
    if not spec.is_classification:
        labels = (labels - trial.label_mean) / trial.label_std
    return Batch(
        features=features,
        lengths=lengths,
        present=present,
        labels=labels,
        weights=counted.reshape(-1).astype(jnp.float32),
        turns=turns,
        available=jnp.asarray(patterns)[:, None, :] & present[None],
        patterns=Patterns.of(patterns),
        noisy=None if noise is None else noisy,
        frozen={name: tensor[rows] for name, tensor in trial.frozen.items()},
        constants=trial.constants,
        rows=jnp.where(turns.reshape(-1), rows, -1),
        speakers=None if resident.speakers is None else resident.speakers[slots],
    )


def recalled(stage: Stage, earlier: dict[str, Params], batch: Batch) -> Batch:
    """The batch with what a stage that recalls has prepared and related for training rows."""
    if not stage.recalls:
        return batch
    batch = batch._replace(frozen=stage.prepare(earlier, batch))
    related = stage.relate(batch) if stage.relate else {}
    return batch._replace(frozen=batch.frozen | related)


MASKS_AT_ONCE = 8  # in one program, where every row has masks of its own
NEVER = np.iinfo(np.int32).max


def in_label_units(spec: CorpusSpec, values: Array, trial: TrialData) -> Array:
    """Standardised labels or predictions of them -> the corpus's; classes and logits stay."""
    return values if spec.is_classification else values * trial.label_std + trial.label_mean


class Programs:
    """The programs of one stage over a mesh.

    Args:
      stage: what to train.
      spec: of the corpus.
      mesh: trials and batches are divided over it.
      training: what a stage that trains on missing patterns sees in a step: "all" patterns of every
        utterance, a "sample" of one for each, one at a missing "rate", or, by its name, one pattern
        that is all that it is trained and selected on.
      corruption: what such a stage meets, in training and validation, instead of absent modalities.
      select: of several tasks the one that chooses epochs; empty: all of them (`metrics.score`).
    """

    def __init__(
        self,
        stage: Stage,
        spec: CorpusSpec,
        mesh: Mesh,
        *,
        training: str = "all",
        corruption: Corruption | None = None,
        select: str = "",
    ):
        self._stage = stage
        self._spec = spec
        self._mesh = mesh
        missing = stage.patterns == "missing"
        full = full_pattern(len(spec.modalities))
        self.patterns = training_patterns(training, spec.names) if missing else full
        self._training = training if missing else "all"
        self._corruption = corruption if missing else None
        self._select_by = select
        settings = stage.settings
        self._optimizer = make_optimizer(
            b1=settings.b1, weight_decay=settings.weight_decay, clip=settings.clip
        )
        trials = mesh_lib.by_trial(mesh)
        jit = functools.partial(jax.jit, out_shardings=trials)
        self.init = jit(jax.vmap(self._init))
        self._epoch = jit(self._whole_epoch, donate_argnums=0)
        self._train = jit(self._train_steps, donate_argnums=(0, 1))
        self._validate = jit(self._count)
        self._select = jit(self._keep_best, donate_argnums=0)
        # [S, T, U·L, ...], like the rows they belong to.
        self._prepare = jax.jit(self._prepare_steps)
        self._relate = jax.jit(self._relate_steps)
        self._predict = jax.jit(self._predict_steps, static_argnames="patterns")
        self._invariants = jax.jit(self._invariant_steps)
        self._imagine = jax.jit(self._imagination_steps)
        self._study = jax.jit(self._study_steps)
        self._constants = jit(jax.vmap(stage.constants))
        self._survey = jit(jax.vmap(self._survey_rows))

    # ---- host side: one call each ----

    def train_epoch(
        self,
        state: TrainState,
        trials: TrialData,
        feed: Feed,
        train_units: Units,
        validation_units: Units,
        epoch: int,
    ) -> tuple[TrainState, dict[str, Array]]:
        """One epoch; units are [S, T, U, L]. Returns the new state and metrics [T] each.

        `not_finite/TERM` is the first update (counted from 1) at which a term was not finite, 0 for
        none. Such a trial keeps its best parameters and goes on with NaN: no later epoch counts.
        """
        factor = decay_factor(
            epoch, self._stage.settings.constant_epochs, self._stage.settings.decay_epochs
        )
        if feed.placement == "device":
            (train,), (validation,) = feed.pieces(train_units), feed.pieces(validation_units)
            return self._epoch(state, trials, train, validation, factor, epoch)
        sums = None
        for piece in feed.pieces(train_units):
            state, sums = jax.block_until_ready(self._train(state, sums, trials, piece, factor))
        parts = _of_pieces(
            feed, validation_units, lambda piece: self._validate(state.params, trials, piece)
        )
        counts = jax.tree.map(lambda *x: sum(x), *parts)
        return self._select(state, sums, counts, epoch)

    def lower_epoch(self, state, trials: TrialData, train: Piece, validation: Piece):
        """The epoch's program before compilation, for counting its FLOPs and bytes."""
        return self._epoch.lower(state, trials, train, validation, jnp.float32(1), 0)

    def prepare(
        self,
        earlier: dict[str, Params],
        trials: TrialData,
        feed: Feed,
        units: Units,
        trained: np.ndarray,
        known: Sequence[tuple[Feed, Units]] = (),
    ) -> TrialData:
        """`trials` with what the frozen stages say of every row of the corpus.

        Args:
          units: [S, T, U, L], in which every trial counts each row of the corpus once.
          trained: [T, N], the rows that a trial trains on.
          known: of a stage that relates, what its database is made of: as of `database`.
        """
        if not earlier and self._stage.relate is None:
            return trials
        of_row = _places(units, trained.shape[1])
        parts = _of_pieces(feed, units, lambda piece: self._prepare(earlier, trials, piece))
        trials = trials._replace(frozen=self._joined(parts, of_row))
        trials = self.remember(trials, earlier, self.database(earlier, trials, known))
        frozen, constants = trials.frozen, trials.constants
        if self._stage.survey:
            frozen, more = self._survey(frozen, trained, trials.key)
            constants = constants | more
        elif self._stage.relate:
            parts = _of_pieces(feed, units, lambda piece: self._relate(trials, piece))
            frozen = frozen | self._joined(parts, of_row)
        return trials._replace(frozen=frozen, constants=constants)

    def database(
        self,
        earlier: dict[str, Params],
        trials: TrialData,
        known: Sequence[tuple[Feed, Units]],
    ) -> dict[str, Array] | None:
        """What `prepare` says of the rows that may be found, [T, R, ...] each; None: none.

        Args:
          known: corpora and utterances [S, T, B, 1] of them; the last is the corpus that is trained
            on, its rows ascending.
        """
        if self._stage.relate is None:
            return None
        found = []
        for number, (feed, units) in enumerate(known, start=1):
            parts = _of_pieces(feed, units, lambda piece: self._prepare(earlier, trials, piece))
            rows = units.rows.swapaxes(0, 1).reshape(units.rows.shape[1], -1)  # [T, R]
            last = number == len(known)
            named = np.where(rows < 0, FILLING if last else EMPTY, rows if last else OTHER)
            in_order = np.broadcast_to(np.arange(rows.shape[1]), rows.shape)
            found.append((self._joined(parts, in_order), rows >= 0, named.astype(np.int32)))

        def real(x, mask):
            return jnp.where(mask.reshape(*mask.shape, *[1] * (x.ndim - 2)), x, jnp.zeros_like(x))

        def join(found):
            kept = [
                {name: real(x, mask) for name, x in tensors.items()} | {"row": named}
                for tensors, mask, named in found
            ]
            return jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *kept)

        return jax.jit(join, out_shardings=mesh_lib.by_trial(self._mesh))(found)

    def remember(
        self, trials: TrialData, earlier: dict[str, Params], database: dict[str, Array] | None
    ) -> TrialData:
        """`trials` with the stage's constants: all that predictions need beside parameters."""
        constants = self._constants(earlier)
        if database is not None:
            constants = constants | {"database": database}
        return trials._replace(constants=constants, earlier=earlier if self._stage.recalls else {})

    def _joined(self, parts, places):
        """Leaves [S, T, U·L, ...] of each part -> [T, n, ...], at `places` [T, n] of S·U·L."""

        def join(*leaves):
            whole = jnp.concatenate(leaves).swapaxes(0, 1)
            whole = whole.reshape(whole.shape[0], -1, *whole.shape[3:])
            return jax.vmap(lambda values, place: values[place])(whole, places)

        return jax.jit(
            lambda parts: jax.tree.map(join, *parts), out_shardings=mesh_lib.by_trial(self._mesh)
        )(parts)

    def predict(
        self,
        params: Params,
        trials: TrialData,
        feed: Feed,
        units: Units,
        available: np.ndarray,
        noise: Noise | None = None,
    ) -> np.ndarray:
        """Logits [T, K, S·U·L, C] of units [S, T, U, L].

        Args:
          available: patterns [K, M], or masks of every row of the corpus, [K, N, M].
          noise: [N] of the corpus: what is not available is noised instead of absent.
        """
        if available.ndim == 2:
            return self._predict_under(
                params, trials, feed, units, noise, patterns=Patterns.of(available)
            )
        missing = -len(available) % min(MASKS_AT_ONCE, len(available))
        masks = np.concatenate([available, available[:1].repeat(missing, axis=0)])
        parts = [
            self._predict_under(params, trials, feed, units, noise, masks=part)
            for part in np.split(masks, max(1, len(masks) // MASKS_AT_ONCE))
        ]
        return np.concatenate(parts, axis=1)[:, : len(available)]

    def _predict_under(self, params, trials, feed: Feed, units: Units, noise, **available):
        parts = _of_pieces(
            feed, units, lambda piece: self._predict(params, trials, piece, noise, **available)
        )
        return _by_pattern(parts, len(units))

    def study(self, trials: TrialData, feed: Feed, units: Units) -> dict[str, np.ndarray]:
        """What the stage says of units [S, T, U, L] for study, [T, K, S·U·L, ...] each.

        `trials` must come from `prepare`; K are the stage's patterns.
        """
        parts = _of_pieces(feed, units, lambda piece: self._study(trials, piece))
        return {name: _by_pattern([part[name] for part in parts], len(units)) for name in parts[0]}

    def imagination(
        self, params: Params, trials: TrialData, feed: Feed, units: Units
    ) -> np.ndarray:
        """R² [T, K] of what is imagined of units [S, T, U, L] under the stage's patterns.

        The explained share of the variance of the teacher's answers in the slots that a pattern
        takes away; not finite where they have none. `trials` must come from `prepare`.
        """
        sums = mesh_lib.fetch(
            _of_pieces(feed, units, lambda piece: self._imagine(params, trials, piece))
        )
        count, total, squares, errors = (
            sum(part[i].astype(np.float64) for part in sums) for i in range(4)
        )
        variance = squares - np.sum(total**2 / np.maximum(count, 1.0)[..., None], axis=(-2, -1))
        with np.errstate(divide="ignore", invalid="ignore"):
            return 1.0 - errors / variance

    def invariants(
        self, params: Params, trials: TrialData, feed: Feed, units: Units
    ) -> np.ndarray | None:
        """Invariant features [T, S·U·L, M, h] of units; None where the method has none."""
        if self._stage.invariants is None:
            return None
        parts = mesh_lib.fetch(
            _of_pieces(feed, units, lambda piece: self._invariants(params, trials, piece))
        )
        found = np.concatenate(parts)[: len(units)].swapaxes(0, 1)  # [T, S, U·L, M, h]
        return found.reshape(len(found), -1, *found.shape[3:])

    # ---- device side ----

    def _init(self, key: Array, earlier: dict[str, Params]) -> TrainState:
        params = self._stage.init(jax.random.fold_in(key, 0), earlier)
        return TrainState(
            params=params,
            optimizer=self._optimizer.init(params),
            step=jnp.zeros((), jnp.int32),
            best_params=params,
            best_score=jnp.full((), -jnp.inf, jnp.float32),
            best_epoch=jnp.full((), -1, jnp.int32),
        )

    def _whole_epoch(self, state, trials, train: Piece, validation: Piece, factor, epoch):
        state, sums = self._train_steps(state, None, trials, train, factor)
        counts = self._count(state.params, trials, validation)
        return self._keep_best(state, sums, counts, epoch)

    def _train_steps(self, state, sums, trials, piece: Piece, factor):
        """Train on the steps of a piece; `sums` (TrainSums) adds up metrics over real steps."""
        before = state.step

        def one_step(state, inputs):
            return jax.vmap(self._update, in_axes=(0, 0, None, 0, 0, 0, None))(
                state, trials, piece.resident, *inputs, factor
            )

        state, values = jax.lax.scan(one_step, state, _steps(piece))
        number = before[None] + jnp.cumsum(values["steps"], axis=0).astype(jnp.int32)  # [S, T]
        added = TrainSums(
            totals={name: v.sum(axis=0) for name, v in values.items()},
            first_bad={name: _first_bad(v, number) for name, v in values.items()},
        )
        if sums is None:
            return state, added
        return state, TrainSums(
            totals=jax.tree.map(jnp.add, sums.totals, added.totals),
            first_bad=jax.tree.map(jnp.minimum, sums.first_bad, added.first_bad),
        )

    def _update(self, state: TrainState, trial: TrialData, resident, slots, rows, counted, factor):
        """One update of one trial; nothing changes where the batch is empty."""
        real = jnp.any(counted)
        key = jax.random.fold_in(trial.key, 1 + state.step)
        pattern_key, loss_key = jax.random.split(key)
        noise = None
        if self._corruption:
            noise = self._corruption.of_batch(jax.random.fold_in(key, 2), rows.size)
        batch = make_batch(self._spec, resident, trial, slots, rows, counted, self.patterns, noise)
        if self._training == "sample":
            available = _sample_pattern(pattern_key, batch)
            batch = batch._replace(available=available, patterns=None)
        elif self._training == "rate":
            available = _sample_at_rate(pattern_key, batch, trial.rate)
            batch = batch._replace(available=available, patterns=None)
        gradient_of = jax.value_and_grad(self._stage.loss, has_aux=True)
        (loss, terms), gradients = gradient_of(state.params, batch, loss_key, trial.hyper)
        direction, optimizer = self._optimizer.update(gradients, state.optimizer, state.params)
        rate = factor * trial.hyper["learning_rate"]
        params = jax.tree.map(lambda p, d: p - rate * d, state.params, direction)
        if "statistics" in terms:
            params["statistics"] = terms.pop("statistics")
        # A trial with fewer batches than its neighbours waits for them unchanged.
        params, optimizer, step = jax.tree.map(
            lambda new, old: jnp.where(real, new, old),
            (params, optimizer, state.step + 1),
            (state.params, state.optimizer, state.step),
        )
        record = {"loss": loss, **terms, "gradient_norm": optax.tree.norm(gradients)}
        record = jax.tree.map(lambda v: jnp.where(real, v, 0.0), record)
        record["steps"] = real.astype(jnp.float32)
        return state._replace(params=params, optimizer=optimizer, step=step), record

    def _count(self, params, trials, piece: Piece):
        """Sufficient statistics of the validation score, pooled over patterns, [T, ...]."""

        def one_step(counts, inputs):
            def one_trial(params, trial, slots, rows, counted):
                noise = self._corruption.of_rows(rows.reshape(-1)) if self._corruption else None
                batch = make_batch(
                    self._spec, piece.resident, trial, slots, rows, counted, self.patterns, noise
                )
                outputs = in_label_units(self._spec, self._stage.predict(params, batch), trial)
                labels = in_label_units(self._spec, batch.labels, trial)
                return metrics.score_counts(self._spec, outputs, labels, batch.weights)

            added = jax.vmap(one_trial)(params, trials, *inputs)
            return jax.tree.map(jnp.add, counts, added), None

        zeros = jax.tree.map(
            lambda x: jnp.zeros((len(trials.key), *x.shape)), metrics.zero_counts(self._spec)
        )
        return jax.lax.scan(one_step, zeros, _steps(piece))[0]

    def _keep_best(self, state: TrainState, sums: TrainSums, counts, epoch):
        score_of = functools.partial(metrics.score, spec=self._spec, select=self._select_by)
        score = jax.vmap(score_of)(counts)
        by_task = jax.vmap(functools.partial(metrics.task_scores, spec=self._spec))(counts)
        totals = dict(sums.totals)
        steps = jnp.maximum(totals.pop("steps"), 1.0)
        record = {name: total / steps for name, total in totals.items()} | {
            "validation_score": score,
            "parameter_norm": jax.vmap(optax.tree.norm)(state.params),
            **{f"validation/{name}": values for name, values in by_task.items()},
        }
        # A score alone does not show it: the classes of NaN logits are as good as any.
        finite = jnp.all(jnp.isfinite(jnp.stack(list(record.values()))), axis=0)
        better = finite & (score > state.best_score)
        state = state._replace(
            params=jax.tree.map(functools.partial(_else_nan, finite), state.params),
            best_params=jax.tree.map(
                functools.partial(_where, better), state.params, state.best_params
            ),
            best_score=_where(better, score, state.best_score),
            best_epoch=_where(better, jnp.full_like(state.best_epoch, epoch), state.best_epoch),
        )
        bad = {name: jnp.where(at == NEVER, 0, at) for name, at in sums.first_bad.items()}
        return state, record | {
            "best_score": state.best_score,
            "best_epoch": state.best_epoch,
            "step": state.step,
            **{f"{NOT_FINITE}{name}": bad[name] for name in totals},
        }

    def _prepare_steps(self, earlier, trials, piece: Piece):
        full = full_pattern(len(self._spec.modalities))

        def one_trial(earlier, trial, slots, rows, counted):
            batch = make_batch(self._spec, piece.resident, trial, slots, rows, counted, full)
            return self._stage.prepare(earlier, batch)

        return jax.lax.map(
            lambda inputs: jax.vmap(one_trial)(earlier, trials, *inputs), _steps(piece)
        )

    def _relate_steps(self, trials, piece: Piece):
        assert self._stage.relate is not None
        relate = self._stage.relate
        full = full_pattern(len(self._spec.modalities))

        def one_trial(trial, *inputs):
            return relate(make_batch(self._spec, piece.resident, trial, *inputs, full))

        return jax.lax.map(lambda inputs: jax.vmap(one_trial)(trials, *inputs), _steps(piece))

    def _survey_rows(self, frozen, trained, key):
        key = jax.random.fold_in(key, np.uint32(-1 % 2**32))  # a step that training never reaches
        return self._stage.survey(frozen, trained, key)  # type: ignore[misc]

    def _predict_steps(self, params, trials, piece: Piece, noise, *, patterns=None, masks=None):
        fixed = full_pattern(len(self._spec.modalities)) if patterns is None else patterns.array()

        def one_trial(params, trial, slots, rows, counted):
            flat = jnp.maximum(rows.reshape(-1), 0)
            mine = None if noise is None else noise.take(flat)
            batch = make_batch(self._spec, piece.resident, trial, slots, rows, counted, fixed, mine)
            if masks is not None:
                available = masks[:, flat] & batch.present[None]
                batch = batch._replace(available=available, patterns=None)
            batch = recalled(self._stage, trial.earlier, batch)
            return in_label_units(self._spec, self._stage.predict(params, batch), trial)

        return jax.lax.map(
            lambda inputs: jax.vmap(one_trial)(params, trials, *inputs), _steps(piece)
        )

    def _imagination_steps(self, params, trials, piece: Piece):
        """(n [T, K, M], Σ target [T, K, M, h], Σ target² [T, K], Σ error² [T, K])."""

        def one_trial(params, trial, slots, rows, counted):
            batch = make_batch(
                self._spec, piece.resident, trial, slots, rows, counted, self.patterns
            )
            imagined, target = self._stage.imagine(params, batch)  # type: ignore[misc]
            taken = batch.present[None] & ~batch.available & (batch.pattern_weights > 0)[..., None]
            count = jnp.sum(taken, axis=1)
            target = jnp.where(taken[..., None], target, 0.0)
            error = jnp.where(taken[..., None], (imagined - target) ** 2, 0.0)
            return count, target.sum(axis=1), (target**2).sum((1, 2, 3)), error.sum((1, 2, 3))

        def one_step(sums, inputs):
            added = jax.vmap(one_trial)(params, trials, *inputs)
            return jax.tree.map(jnp.add, sums, added), None

        first = jax.tree.map(lambda x: x[0], _steps(piece))
        shapes = jax.eval_shape(jax.vmap(one_trial), params, trials, *first)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.lax.scan(one_step, zeros, _steps(piece))[0]

    def _study_steps(self, trials, piece: Piece):
        assert self._stage.study is not None
        study, patterns = self._stage.study, self.patterns

        def one_trial(trial, *inputs):
            return study(make_batch(self._spec, piece.resident, trial, *inputs, patterns))

        return jax.lax.map(lambda inputs: jax.vmap(one_trial)(trials, *inputs), _steps(piece))

    def _invariant_steps(self, params, trials, piece: Piece):
        full = full_pattern(len(self._spec.modalities))

        def one_trial(params, trial, slots, rows, counted):
            batch = make_batch(self._spec, piece.resident, trial, slots, rows, counted, full)
            return self._stage.invariants(params, batch)

        return jax.lax.map(
            lambda inputs: jax.vmap(one_trial)(params, trials, *inputs), _steps(piece)
        )


def _first_bad(values: Float[Array, "S T"], number: Int[Array, "S T"]) -> Int[Array, " T"]:
    """The lowest number of a step whose value is not finite; NEVER if all are."""
    return jnp.min(jnp.where(jnp.isfinite(values), NEVER, number), axis=0)


def _where(trials: Bool[Array, " T"], new: Array, old: Array) -> Array:
    """[T, ...]: `new` of these trials, `old` of the others."""
    return jnp.where(trials.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def _else_nan(trials: Bool[Array, " T"], values: Array) -> Array:
    return _where(trials, values, jnp.full_like(values, jnp.nan))


def _of_pieces(feed: Feed, units: Units, program: Callable[[Piece], Any]) -> list:
    """What `program` says of each piece of `units`.

    It is waited for: a host that runs ahead would fill the device with pieces.
    """
    return [jax.block_until_ready(program(piece)) for piece in feed.pieces(units)]


def _by_pattern(parts: Sequence[Array], steps: int) -> np.ndarray:
    """[S, T, K, U·L, ...] in parts, the last filled up -> [T, K, S·U·L, ...] of `steps`."""
    found = np.concatenate(mesh_lib.fetch(list(parts)))[:steps]
    found = np.moveaxis(found, 0, 2)  # [T, K, S, U·L, ...]
    return found.reshape(*found.shape[:2], -1, *found.shape[4:])


def _steps(piece: Piece):
    """What a loop over the steps of a piece runs through: slots, rows, counted."""
    return piece.slots, piece.rows, piece.counted


def _places(units: Units, n_rows: int) -> np.ndarray:
    """[T, N]: where each trial counts each row, in its flat [S·U·L]; 0 where it does not."""
    n_trials = units.rows.shape[1]
    rows, counted = (x.swapaxes(0, 1).reshape(n_trials, -1) for x in units)
    found = np.zeros((n_trials, n_rows), np.int32)
    trials, places = np.nonzero(counted)
    found[trials, rows[trials, places]] = places
    return found


def _sample_at_rate(key: Array, batch: Batch, rate: Float[Array, "2"]) -> Array:
    """[1, B, M]: slots missing at one rate for the whole batch, drawn from the range `rate`.

    As in data/missing.py one modality is kept, each as likely, and the others are dropped with
    what makes the rate; it is reached up to (M - 1) / M.
    """
    n_rows, n_modalities = batch.present.shape
    rate_key, kept_key, slot_key = jax.random.split(key, 3)
    drawn = jax.random.uniform(rate_key, minval=rate[0], maxval=rate[1])
    kept = jax.random.randint(kept_key, (n_rows,), 0, n_modalities)
    dropped = jax.random.bernoulli(
        slot_key, jnp.minimum(drawn * n_modalities / (n_modalities - 1), 1.0), batch.present.shape
    )
    left = ~dropped | (jnp.arange(n_modalities)[None] == kept[:, None])
    return (left & batch.present)[None]


def _sample_pattern(key: Array, batch: Batch):
    """[1, B, M]: one of the batch's patterns for each utterance."""
    n_patterns, n_rows, _ = batch.available.shape
    chosen = jax.random.randint(key, (n_rows,), 0, n_patterns)
    return batch.available[chosen, jnp.arange(n_rows)][None]

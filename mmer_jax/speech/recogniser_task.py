"""Training of the L1 phone recogniser: CTC, and the frames' phones where alignments are known.

CTC alone teaches which phones come in which order. Its posteriors are peaks with blanks between,
which says little about how long a phone lasts or how well all of it was spoken. The frame loss, a
cross-entropy at every frame that an alignment covers, makes the posteriors hold through the phone.
Utterances without a TextGrid can be aligned by the recogniser itself once it knows enough
(`align_from`): Viterbi training.
"""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int
from rich.console import Console

from mmer_jax.errors import UserError
from mmer_jax.speech import corpora
from mmer_jax.speech.augmentation import masked, vary
from mmer_jax.speech.batch import SpeechBatch
from mmer_jax.speech.evaluation import error_rate
from mmer_jax.speech.gop import duration_weights
from mmer_jax.speech.layers import frame_mask
from mmer_jax.speech.phones import BLANK
from mmer_jax.speech.recogniser import STAGE, STRIDE, make_network, posterior_frames
from mmer_jax.speech.recogniser_report import write_report
from mmer_jax.speech.spans import completed, has_durations


class RecogniserTask:
    """As of `task.Task`."""

    name = STAGE

    def __init__(self, config, workdir: Path, console: Console):
        self._config = config
        self.settings = config.stages[STAGE]
        self._folder = corpora.features_of(config, console)
        self.data = corpora.open_data(self._folder, config)
        self.train_rows = self.data.rows("train", accent="")
        self.dev_rows = self.data.rows("dev", accent="")
        for split, rows in (("train", self.train_rows), ("dev", self.dev_rows)):
            if not len(rows):
                raise UserError(
                    f"the corpus has no L1 utterance (empty accent) in split '{split}'; the "
                    "recogniser is trained on L1 alone"
                )
        self.facts: dict[str, object] = {"corpus": self.data.fingerprint}
        self._network = make_network(config.model)

    def init(self, rng: Array):
        mel, n_frames = jnp.zeros((1, 8, 80)), jnp.full((1,), 8)
        return {"network": self._network.init(rng, mel, n_frames)["params"]}

    def loss(self, params, batch: SpeechBatch, rng: Array, epoch):
        vary_key, mask_key, dropout_key = jax.random.split(rng, 3)
        real = frame_mask(batch.n_frames, batch.mel.shape[1])
        mel = vary(vary_key, batch.mel, real, warp=self.settings.warp, noise=self.settings.noise)
        mel = masked(mask_key, mel, real, self.settings.mask_bands, self.settings.mask_frames)
        posteriors = self._network.apply(
            {"params": params["network"]},
            mel,
            batch.n_frames,
            self.settings.dropout,
            rngs={"dropout": dropout_key},
        )
        share = batch.weights / jnp.maximum(jnp.sum(batch.weights), 1.0)
        sequence = jnp.sum(share * ctc_loss(posteriors, batch))
        if self.settings.align_from:
            batch = self_aligned(posteriors, batch, epoch >= self.settings.align_from)
        frames = jnp.sum(share * frame_loss(posteriors, batch))
        total = sequence + self.settings.frame_weight * frames
        return total, {"loss": total, "ctc": sequence, "frames": frames}

    def predict(self, params, batch: SpeechBatch):
        variables = {"params": params["network"]}
        return self._network.apply(variables, batch.mel, batch.n_frames)

    def validate(self, batches: Sequence[SpeechBatch], outputs: Sequence[np.ndarray]):
        rate = error_rate(batches, outputs)
        return {"validation_score": 1.0 - rate, "per": rate}

    def finish(self, workdir: Path, params, console: Console) -> None:
        write_report(workdir, self._config, self.data, self._folder, console)


def self_aligned(
    posteriors: Float[Array, "B G S"], batch: SpeechBatch, is_time: Bool[Array, ""]
) -> SpeechBatch:
    """The batch with durations by its own posteriors where it came without, once `is_time`."""
    durations, feasible = completed(jax.lax.stop_gradient(posteriors), batch)
    wanted = has_durations(batch) | (feasible & is_time)
    return batch._replace(durations=jnp.where(wanted[:, None], durations, 0))


def ctc_loss(posteriors: Float[Array, "B G S"], batch: SpeechBatch) -> Float[Array, " B"]:
    """-log P(phones), by the number of phones."""
    frames = frame_mask(posterior_frames(batch.n_frames), posteriors.shape[1])
    labels = frame_mask(batch.n_phones, batch.phones.shape[1])
    loss = optax.ctc_loss(
        posteriors, 1.0 - frames, batch.phones, 1.0 - labels, blank_id=BLANK, log_epsilon=-1e5
    )
    return loss / jnp.maximum(batch.n_phones, 1)


def frame_loss(posteriors: Float[Array, "B G S"], batch: SpeechBatch) -> Float[Array, " B"]:
    """Mean over the frames of -log P of their phone; 0 in rows without alignment."""
    targets, known = frame_targets(batch, posteriors.shape[1])
    picked = jnp.take_along_axis(posteriors, targets[..., None], axis=2)[..., 0]
    return -jnp.sum(known * picked, axis=1) / jnp.maximum(jnp.sum(known, axis=1), 1.0)


def frame_targets(
    batch: SpeechBatch, n_frames: int
) -> tuple[Int[Array, "B G"], Float[Array, "B G"]]:
    """(the phone that has most of each posterior frame, 1 where there is one)."""
    weights = duration_weights(batch.durations, n_frames, STRIDE)
    phone = jnp.argmax(weights, axis=1)
    known = (jnp.max(weights, axis=1) > 0).astype(jnp.float32)
    return jnp.take_along_axis(batch.phones, phone, axis=1), known

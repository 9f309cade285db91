"""Training of Ai-TTS: its corpus with measured intensities, its loss, and what follows training."""

import functools
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from mmer_jax.errors import UserError, shorten
from mmer_jax.speech import corpora, intensity
from mmer_jax.speech.aitts import CONTROLS, MADE_UP, AiTTS, Judge
from mmer_jax.speech.annotate import annotate, features_fingerprint
from mmer_jax.speech.batch import SpeechBatch
from mmer_jax.speech.dataset import SpeechData
from mmer_jax.speech.features import N_MELS
from mmer_jax.speech.recogniser import Recogniser, load_recogniser

STAGE = "aitts"


def make_aitts_task(config, workdir: Path, console: Console) -> "AiTTSTask":
    """The task of a configuration: its corpus annotated by its recogniser."""
    del workdir
    check_values(config)
    recogniser = load_recogniser(config.data.recogniser)
    data, scale = open_annotated(config, recogniser, console)
    return AiTTSTask(config, data, Judge(recogniser, scale))


class AiTTSTask:
    """As of `task.Task`.

    Args:
      config: of the run.
      data: an annotated corpus.
      judge: what measured its intensities, for the consistency constraint.
    """

    name = STAGE

    def __init__(self, config, data: SpeechData, judge: Judge):
        self.config, self.settings, self.data = config, config.stages[STAGE], data
        check_voices(self.data)
        self.train_rows = self.data.rows("train")
        self.dev_rows = seen(self.data, "dev")
        # Or the report would say that it is missing, after all the training.
        seen(self.data, "test", accent="")
        self.facts: dict[str, object] = {
            "corpus": self.data.fingerprint,
            "recogniser": judge.recogniser.fingerprint,
            "speakers": list(self.data.speakers),
            "accents": list(self.data.accents),
            "voices": voices(self.data),
            "longest": int(self.data.n_phones[self.train_rows].max()),
        }
        sizes = len(self.data.speakers), len(self.data.accents)
        self.model = AiTTS(config.model, *sizes, judge)
        self.weights = {
            name.removesuffix("_weight"): float(value)
            for name, value in self.settings.items()
            if name.endswith("_weight")
        }
        self.is_consistent = self.weights["consistency"] > 0 and config.model.control in (
            "phone",
            "utterance",
        )

    def init(self, rng):
        mean, std = self._mel_statistics
        return self.model.init(rng, jnp.asarray(mean), jnp.asarray(std))

    def loss(self, params, batch: SpeechBatch, rng, epoch):
        """The consistency constraint begins at an epoch of its own, on a share of the rows."""
        keys = jax.random.split(rng)
        terms = self.model.terms(params, batch, keys[0], self.settings.dropout)
        found = {name: _mean(values, batch.weights) for name, values in terms.items()}
        if self.is_consistent:
            count = max(1, round(self.settings.consistency_rows * self.settings.batch_size))
            few = jax.tree.map(lambda x: x[:count], batch)

            def constraint():
                terms = self.model.consistency(params, few, keys[1], self.settings.dropout)
                return {name: _mean(values, few.weights) for name, values in terms.items()}

            def nothing():
                return dict.fromkeys(MADE_UP, jnp.zeros(()))

            begun = epoch >= self.settings.consistency_from
            found |= jax.lax.cond(begun, constraint, nothing)
        total = self._total(found)
        return total, {"loss": total} | found

    def predict(self, params, batch: SpeechBatch):
        """Every term of each utterance; made-up requests are the same in every epoch."""
        key = jax.random.key(0)
        terms = self.model.terms(params, batch, key, None)
        if self.is_consistent:
            terms |= self.model.consistency(params, batch, key)
        return terms

    def validate(self, batches: Sequence[SpeechBatch], outputs) -> dict[str, float]:
        weights = np.concatenate([batch.weights for batch in batches])
        found = {
            name: float(np.average(np.concatenate([o[name] for o in outputs]), weights=weights))
            for name in outputs[0]
        }
        counted = {name: value for name, value in found.items() if name != "adversary"}
        return {"validation_score": -float(self._total(counted))} | found

    def finish(self, workdir: Path, params, console: Console) -> None:
        from mmer_jax.speech.aitts_report import write_report

        assert self.model.judge is not None
        self.model.judge.scale.save(intensity.place(workdir))
        write_report(workdir, self, jax.tree.map(lambda leaf: leaf[0], params), console)

    def _total(self, terms):
        """The mel error has the weight 1."""
        return terms["mel"] + sum(
            weight * terms[name] for name, weight in self.weights.items() if name in terms
        )

    @functools.cached_property
    def _mel_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """([M] means, [M] standard deviations) of the training frames' mel bands."""
        sums = np.zeros((3, N_MELS))  # of ones, values and squares
        for batch in self.data.stream(self.data.batches(self.train_rows, 32, None)):
            real = np.arange(batch.mel.shape[1])[None] < batch.n_frames[:, None]
            frames = batch.mel[real & (batch.weights > 0)[:, None]].astype(np.float64)
            sums += np.stack([(frames**power).sum(axis=0) for power in range(3)])
        mean = sums[1] / sums[0]
        std = np.sqrt(sums[2] / sums[0] - mean**2)
        return mean.astype(np.float32), std.astype(np.float32)


def open_annotated(
    config, recogniser: Recogniser, console: Console
) -> tuple[SpeechData, intensity.IntensityScale]:
    """The corpus with durations, prosody and measured intensities, and the intensities' scale."""
    features = corpora.features_of(config, console)
    folder = annotate(features, recogniser, corpora.cache_of(config), config)
    data = corpora.open_data(folder, config)
    # What was measured follows from the features, the recogniser and the settings; on another
    # machine it is rounded differently.
    data.fingerprint = features_fingerprint(folder)
    return data, intensity.load(folder / "scaling.json")


def _pairs(data: SpeechData) -> list[tuple[str, str]]:
    """(speaker, accent) of the training speech, each once, in order."""
    rows = data.rows("train")
    pairs = zip(data.columns["speaker"][rows], data.columns["accent"][rows], strict=True)
    return sorted({(str(speaker), str(accent)) for speaker, accent in pairs})


def voices(data: SpeechData) -> dict[str, str]:
    """Training speaker -> the accent of their speech."""
    return dict(_pairs(data))


def check_voices(data: SpeechData) -> None:
    """Refuse a corpus whose accents cannot be learnt.

    Raises:
      UserError: it has no accent, one without training speech, or a speaker with several.
    """
    if len(data.accents) < 2:
        raise UserError(
            "the corpus has no accented speech; name the accent of some utterances in column "
            "'accent' of utterances.csv"
        )
    pairs = _pairs(data)
    missing = sorted(set(data.accents) - {accent for _, accent in pairs})
    if missing:
        raise UserError(
            f"no utterance in split 'train' has the accent '{missing[0]}' (empty: L1); give it "
            "some, or leave out those of the other splits"
        )
    speakers = [speaker for speaker, _ in pairs]
    several = sorted({speaker for speaker in speakers if speakers.count(speaker) > 1})
    if several:
        accents = [accent for speaker, accent in pairs if speaker == several[0]]
        raise UserError(
            f"speaker '{several[0]}' has the accents {shorten(accents)}; a voice has one accent: "
            "name the speakers apart in column 'speaker' of utterances.csv"
        )


def seen(data: SpeechData, split: str, accent: str | None = None) -> np.ndarray:
    """The rows of a split, `dev` or `test`, whose speakers are known from training.

    Raises:
      UserError: there are none; a voice is learnt from its own recordings.
    """
    rows = np.concatenate([data.rows(split, accent), data.rows(f"{split}_seen", accent)])
    rows = rows[np.isin(data.columns["speaker"][rows], list(voices(data)))]
    if not len(rows):
        whose = "a training speaker" if accent is None else "an L1 speaker of training"
        raise UserError(
            f"the corpus has no utterance of {whose} in split '{split}_seen' (or "
            f"'{split}'); give some of their sentences, which training has not, that split in "
            "utterances.csv"
        )
    return rows


def check_values(config) -> None:
    """Refuse what the network cannot be built of."""
    model, settings = config.model, config.stages[STAGE]
    if model.control not in CONTROLS:
        raise UserError(f"model.control is '{model.control}'; choose one of: {', '.join(CONTROLS)}")
    if model.hidden % 2 or model.hidden % model.heads:
        raise UserError(
            f"model.hidden is {model.hidden}; expected an even multiple of model.heads, "
            f"{model.heads}"
        )
    if model.kernel % 2 == 0:
        raise UserError(f"model.kernel is {model.kernel}; expected an odd number")
    for name in ("encoder_blocks", "decoder_blocks", "feedforward", "post_channels"):
        if model[name] < 1:
            raise UserError(f"model.{name} is {model[name]}; it must be at least 1")
    if not 0 < settings.consistency_rows <= 1:
        raise UserError(
            f"stages.aitts.consistency_rows is {settings.consistency_rows}; expected a share of "
            "the batch, above 0 and at most 1"
        )
    if settings.weight_decay:
        raise UserError(
            f"stages.aitts.weight_decay is {settings.weight_decay}; it must be 0, or the mels' "
            "means and deviations, which are among the parameters, would decay as well"
        )
    if not config.data.recogniser:
        raise UserError(
            "no recogniser to measure accents with; train one with configs/l1_recogniser.py and "
            "give its workdir: --config.data.recogniser=DIR"
        )


def _mean(values, weights):
    """Mean over the rows that count."""
    return jnp.sum(values * weights) / jnp.maximum(jnp.sum(weights), 1.0)

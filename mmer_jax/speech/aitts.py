"""Ai-TTS: accented speech synthesis with explicit accent intensity.

Liu, Zuo, Hu, Gao, Li 2022, and its journal version's accent variance adaptor and consistency
constraint. METHODS §8. Each phone of the training speech has a measured intensity: the scaled
goodness of pronunciation that the frozen L1 recogniser gives it. FastSpeech2 is told that number.

    L = L_mel + λ_d·L_duration + λ_p·L_pitch + λ_e·L_energy       reconstruction, given intensities
      + λ_i·L_intensity                                           the predictor for plain text
      + λ_c·L_consistency + λ_m·L_movement                        made-up requests, measured again

Natural speech has few combinations of accent, phone and intensity: an accent that has no TH never
says a good one. So the consistency constraint works on requests that are made up: any speaker with
any accent at any strength says the batch's sentences, and the recogniser must hear each phone as
strongly accented as was asked. The paper has no L_movement: without it the recogniser is pleased
best by spectra that hardly move (consistency.movement_mismatch).

`model.control` says what the number of a phone means (ablations):

    phone        its own intensity, and the utterance's mean: Ai-TTS
    utterance    the utterance's mean for every phone
    none         nothing: an accent has one strength
    adversarial  the weight of a speaker-adversarial loss: the paper's baseline (adversary.py)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from mmer_jax.speech.adversary import SpeakerAdversary
from mmer_jax.speech.batch import SpeechBatch
from mmer_jax.speech.blocks import mean_over
from mmer_jax.speech.consistency import margin, mismatch, movement_mismatch, perturbed
from mmer_jax.speech.fastspeech import FastSpeech, Prosody, Text, Voice
from mmer_jax.speech.features import N_MELS
from mmer_jax.speech.gop import span_weights
from mmer_jax.speech.intensity import IntensityScale
from mmer_jax.speech.length import Frames, cut, frames_of, whole_frames
from mmer_jax.speech.phones import N_SYMBOLS
from mmer_jax.speech.recogniser import Recogniser, posterior_frames
from mmer_jax.speech.requests import spread
from mmer_jax.speech.spans import judged_spans

CONTROLS = ("phone", "utterance", "none", "adversarial")
MADE_UP = ("consistency", "movement")  # the terms of made-up requests


class Judge(NamedTuple):
    """What measures an accent: the frozen recogniser and the corpus's scale."""

    recogniser: Recogniser
    scale: IntensityScale


class AiTTS:
    """The network, what training asks of it, and what synthesis does with it.

    Args:
      model: config.model.
      n_speakers, n_accents: of the corpus; accent 0 is L1.
      judge: for the consistency constraint; None: synthesis only.
    """

    def __init__(self, model, n_speakers: int, n_accents: int, judge: Judge | None = None):
        self.control, self.n_accents, self.judge = model.control, n_accents, judge
        self.network = FastSpeech(model, N_SYMBOLS, n_speakers, n_accents, N_MELS)
        self.adversary = SpeakerAdversary(n_speakers, model.hidden)
        self.hidden = model.hidden

    def init(self, key: Array, mel_mean: Float[Array, " M"], mel_std: Float[Array, " M"]):
        """Parameters; `scaling` holds the mels' statistics, which never change."""
        network_key, adversary_key = jax.random.split(key)
        zeros, ones = jnp.zeros((1, 4), jnp.int32), jnp.ones((1, 4), jnp.int32)
        text, frames = Text(ones, zeros), frames_of(ones, 8)
        voice = Voice(zeros[:, 0], zeros[:, 0], jnp.zeros((1, 4)))
        params = self.network.init(network_key, text, voice, frames, method=FastSpeech.everything)[
            "params"
        ]
        params |= {"scaling": {"mean": mel_mean, "std": mel_std}}
        if self.control == "adversarial":
            given = jnp.zeros((1, 4, self.hidden)), jnp.zeros(1)
            params |= {"adversary": self.adversary.init(adversary_key, *given)["params"]}
        return params

    # ---- training -------------------------------------------------------------------------------

    def terms(
        self, params, batch: SpeechBatch, key: Array, dropout: float | None
    ) -> dict[str, Float[Array, " B"]]:
        """Every term of the loss but consistency, of each utterance."""
        keys = jax.random.split(key, 2)
        apply = _Apply(self.network, params, dropout, keys[0])
        text = Text(batch.phones, batch.words)
        frames = frames_of(batch.durations, batch.mel.shape[1])
        voice = Voice(batch.speaker, batch.accent, self._control(batch, text, keys[1]))
        encoded = apply("encode", text)
        accented = apply("accented", encoded, text, voice)
        x = apply("with_speaker", accented, text, batch.speaker)
        prosody = apply("prosody", x, text)
        mels = apply("decode", x, text, batch.pitch, batch.energy, frames)
        terms = _prosody_errors(prosody, batch, text)
        before, after = (self._mel_error(params, mel, batch, frames) for mel in mels)
        terms["mel"] = before + after
        if self.control == "adversarial":
            terms["adversary"] = self._adversary_error(params, accented, voice, text)
        else:
            natural = apply("natural_intensity", encoded, text, batch.accent)
            error = jnp.square(natural - batch.intensity)
            terms["intensity"] = jnp.where(batch.accent > 0, mean_over(error, text.spoken), 0.0)
        return terms

    def consistency(
        self, params, batch: SpeechBatch, key: Array, dropout: float | None = None
    ) -> dict[str, Float[Array, " B"]]:
        """The terms of made-up requests, of each utterance.

        Dropout is that of `terms`; were there none, the network could tell one from the other and
        keep a second voice for the recogniser.
        """
        assert self.judge is not None
        keys = jax.random.split(key, 6)
        apply = _Apply(self.network, params, dropout, keys[5])
        text, rows = Text(batch.phones, batch.words), batch.speaker.shape[0]
        accent = jax.random.randint(keys[0], (rows,), 1, self.n_accents)
        speaker = jax.random.permutation(keys[1], batch.speaker)
        mean = jax.random.uniform(keys[2], (rows,))
        natural = jax.lax.stop_gradient(self.natural_intensity(params, text, accent))
        requested = spread(natural, mean, text.spoken)
        requested += 0.15 * jax.random.normal(keys[3], requested.shape)
        requested = jnp.where(text.spoken, jnp.clip(requested, 0.0, 1.0), 0.0)
        x, prosody = self._plan(apply, text, Voice(speaker, accent, self.shaped(requested, text)))
        # Recordings alone say what pitch and energy are. Otherwise the predictors would become a
        # second way to please the recogniser, in which speech sounds like no recording.
        prosody = jax.lax.stop_gradient(prosody)
        durations = cut(whole_frames(prosody.log_duration, batch.phones), batch.mel.shape[1])
        frames = frames_of(durations, batch.mel.shape[1])
        mel = self._render(apply, x, text, prosody, frames)
        margins, counted = self._margins(perturbed(mel, keys[4]), text, durations)
        scale = self.judge.scale
        phones, whole = mismatch(margins, requested, counted, scale.low, scale.high)
        recorded = frames_of(batch.durations, batch.mel.shape[1])
        return {
            "consistency": mean_over(phones, counted) + whole,
            "movement": movement_mismatch(mel, frames.valid, batch.mel, recorded.valid),
        }

    def _margins(
        self, mel, text: Text, durations
    ) -> tuple[Float[Array, "B P"], Bool[Array, "B P"]]:
        """The recogniser's margins of a mel's phones, and which phones have been said.

        It finds the phones by itself, as in any speech that it judges: where the network meant them
        to be is not where it may hear them.
        """
        assert self.judge is not None
        n_frames = jnp.sum(durations, axis=1)
        heard = self.judge.recogniser.log_posteriors(mel, n_frames)
        spans = judged_spans(
            jax.lax.stop_gradient(heard),
            posterior_frames(n_frames),
            text.phones,
            jnp.sum(durations > 0, axis=1),
        )
        weights = span_weights(spans.starts, spans.ends, heard.shape[1])
        counted = text.spoken & (durations > 0) & spans.feasible[:, None]
        return margin(heard, text.phones, weights), counted

    def _control(self, batch: SpeechBatch, text: Text, key: Array) -> Float[Array, "B P"]:
        """What training tells the network: the measured intensities, or a drawn weight."""
        if self.control == "adversarial":
            weight = jax.random.uniform(key, (batch.phones.shape[0], 1))
            return jnp.where(text.spoken, weight, 0.0)
        return self.shaped(batch.intensity, text)

    def shaped(self, intensity: Float[Array, "B P"], text: Text) -> Float[Array, "B P"]:
        """Intensities of phones as the ablation wants them."""
        if self.control == "none":
            return jnp.zeros_like(intensity)
        if self.control == "phone":
            return jnp.where(text.spoken, intensity, 0.0)
        return jnp.where(text.spoken, mean_over(intensity, text.spoken)[:, None], 0.0)

    def _mel_error(self, params, mel, batch: SpeechBatch, frames: Frames) -> Float[Array, " B"]:
        scaling = jax.lax.stop_gradient(params["scaling"])
        target = (batch.mel - scaling["mean"][None, None]) / scaling["std"][None, None]
        error = jnp.mean(jnp.abs(mel - target), axis=-1)
        return mean_over(error, frames.valid)

    def _adversary_error(self, params, accented, voice: Voice, text: Text) -> Float[Array, " B"]:
        given = {"params": params["adversary"]}
        logits = self.adversary.apply(given, accented, jnp.max(voice.control, axis=1))
        labels = jnp.broadcast_to(voice.speaker[:, None], text.phones.shape)
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return mean_over(entropy, text.spoken)

    # ---- synthesis ------------------------------------------------------------------------------

    def natural_intensity(self, params, text: Text, accent: Int[Array, " B"]):
        """[B, P]: how strong the phones are when nobody says how strong they should be."""
        apply = _Apply(self.network, params)
        return apply("natural_intensity", apply("encode", text), text, accent)

    def plan(self, params, text: Text, voice: Voice) -> tuple[Float[Array, "B P D"], Prosody]:
        """(phones that carry speaker and accent, their prosody)."""
        return self._plan(_Apply(self.network, params), text, voice)

    def render(
        self, params, x, text: Text, prosody: Prosody, frames: Frames
    ) -> Float[Array, "B F M"]:
        """The log-mel spectrogram of planned phones, after the post-net."""
        return self._render(_Apply(self.network, params), x, text, prosody, frames)

    def _plan(self, apply: "_Apply", text: Text, voice: Voice):
        accented = apply("accented", apply("encode", text), text, voice)
        x = apply("with_speaker", accented, text, voice.speaker)
        return x, apply("prosody", x, text)

    def _render(self, apply: "_Apply", x, text: Text, prosody: Prosody, frames: Frames):
        _, mel = apply("decode", x, text, prosody.pitch, prosody.energy, frames)
        scaling = jax.lax.stop_gradient(apply.params["scaling"])
        return mel * scaling["std"][None, None] + scaling["mean"][None, None]


class _Apply:
    """Methods of a network by name, with its parameters and dropout."""

    def __init__(self, network, params, dropout: float | None = None, key: Array | None = None):
        self.network, self.params = network, params
        self.dropout, self.key = dropout, key

    def __call__(self, method: str, *inputs):
        if self.dropout is None or method in ("accented", "with_speaker"):
            return self.network.apply({"params": self.params}, *inputs, method=method)
        assert self.key is not None
        self.key, key = jax.random.split(self.key)
        rngs = {"dropout": key}
        return self.network.apply(
            {"params": self.params}, *inputs, self.dropout, method=method, rngs=rngs
        )


def _prosody_errors(prosody: Prosody, batch: SpeechBatch, text: Text) -> dict[str, Array]:
    """Squared errors of log duration, pitch and energy, means over an utterance's phones."""
    log_durations = jnp.log(jnp.maximum(batch.durations, 1).astype(jnp.float32))
    targets = {"duration": log_durations, "pitch": batch.pitch, "energy": batch.energy}
    return {
        name: mean_over(jnp.square(predicted - target), text.valid)
        for (name, target), predicted in zip(targets.items(), prosody, strict=True)
    }

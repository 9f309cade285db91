"""The networks of Ai-TTS: FastSpeech2 whose phones carry a speaker, an accent and its intensity.

    phones ── encoder ──┬── + speaker + accent style(intensity) ──┬── duration, pitch, energy
                        │                                         │        │
                        └── intensity (for plain text)            └── length regulator ── decoder
                                                                                             │
                                                                      mel ── post-net ── finer mel

FastSpeech2: Ren et al., ICLR 2021. Ai-TTS: Liu et al. 2022 (METHODS §8).
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmer_jax.nn.layers import Dropout, Linear
from mmer_jax.speech.blocks import FeedForwardTransformer, mean_over, sinusoids
from mmer_jax.speech.layers import Convolution, frame_mask
from mmer_jax.speech.length import Frames

small = nn.initializers.normal(0.3)


class Text(NamedTuple):
    """A batch of phone sequences."""

    phones: Int[Array, "B P"]  # 0 = padding
    words: Int[Array, "B P"]  # number of the word; -1: silence or padding

    @property
    def valid(self) -> Bool[Array, "B P"]:
        return self.phones > 0

    @property
    def lengths(self) -> Int[Array, " B"]:
        """How many phones there are."""
        return jnp.sum(self.valid, axis=1)

    @property
    def spoken(self) -> Bool[Array, "B P"]:
        """The phones that have an intensity: all but silence."""
        return self.words >= 0


class Voice(NamedTuple):
    """Who speaks, and how."""

    speaker: Int[Array, " B"]
    accent: Int[Array, " B"]  # 0: L1
    control: Float[Array, "B P"]  # of phones; the accent intensity, 0 to 1


class Prosody(NamedTuple):
    """What the variance adaptor predicts of each phone."""

    log_duration: Float[Array, "B P"]  # of frames
    pitch: Float[Array, "B P"]  # standardised log F0
    energy: Float[Array, "B P"]  # standardised


class PhoneEncoder(nn.Module):
    """Phones and where words begin and end, through transformer blocks."""

    n_symbols: int
    size: int
    blocks: int
    heads: int
    width: int
    channels: int

    @nn.compact
    def __call__(self, text: Text, dropout: float | None = None) -> Float[Array, "B P D"]:
        words = jnp.where(text.valid, text.words, -2)  # so that the last phone is an edge
        edge = jnp.ones_like(words[:, :1], bool)
        change = words[:, 1:] != words[:, :-1]
        edges = jnp.stack(
            [jnp.concatenate([edge, change], 1), jnp.concatenate([change, edge], 1)], axis=-1
        )
        x = nn.Embed(self.n_symbols, self.size, embedding_init=small, name="phones")(text.phones)
        x += Linear(self.size, name="edges")(edges.astype(jnp.float32))
        x += 0.1 * sinusoids(x.shape[1], self.size)[None]
        x = jnp.where(text.valid[..., None], x, 0.0)
        for i in range(self.blocks):
            block = FeedForwardTransformer(self.heads, self.width, self.channels, name=f"block{i}")
            x = block(x, text.lengths, dropout)
        return x


class AccentStyle(nn.Module):
    """What an accent does to each phone, given the phone's and the utterance's intensity.

    Where `vanishes` is set an intensity of 0 has no accent at all, exactly: what the network says
    at 0 is taken off.
    """

    n_accents: int
    size: int
    vanishes: bool

    @nn.compact
    def __call__(self, x: Float[Array, "B P D"], text: Text, voice: Voice) -> Float[Array, "B P D"]:
        accent = nn.Embed(self.n_accents, self.size, embedding_init=small, name="accents")
        mine = jnp.broadcast_to(accent(voice.accent)[:, None], x.shape)
        hidden = Linear(2 * self.size, name="hidden")
        out = Linear(self.size, name="out")

        def style(control):
            whole = jnp.broadcast_to(mean_over(control, text.spoken)[:, None], control.shape)
            numbers = jnp.stack([control, whole], axis=-1)
            return out(nn.relu(hidden(jnp.concatenate([x, mine, numbers], axis=-1))))

        change = style(voice.control)
        return change - style(jnp.zeros_like(voice.control)) if self.vanishes else change


class PhonePredictor(nn.Module):
    """A number for each phone: two convolutions with normalisation (FastSpeech2, §2.3)."""

    size: int
    width: int = 3

    @nn.compact
    def __call__(
        self, x: Float[Array, "B P D"], count: Int[Array, " B"], dropout: float | None = None
    ) -> Float[Array, "B P"]:
        for i in range(2):
            x = nn.relu(Convolution(self.size, self.width, name=f"convolution{i}")(x, count))
            x = Dropout()(nn.LayerNorm(epsilon=1e-5, name=f"norm{i}")(x), dropout)
        out = Linear(1, name="out")(x)[..., 0]
        return jnp.where(frame_mask(count, x.shape[1]), out, 0.0)


class VarianceAdaptor(nn.Module):
    """The accent variance adaptor: duration, pitch and energy of phones that carry their accent."""

    size: int

    def setup(self):
        self.duration = PhonePredictor(self.size)
        self.pitch = PhonePredictor(self.size)
        self.energy = PhonePredictor(self.size)
        self.of_pitch = Convolution(self.size, 3)
        self.of_energy = Convolution(self.size, 3)

    def predict(self, x: Float[Array, "B P D"], count, dropout=None) -> Prosody:
        networks = (self.duration, self.pitch, self.energy)
        return Prosody(*(network(x, count, dropout) for network in networks))

    def add(self, x: Float[Array, "B P D"], count, pitch, energy) -> Float[Array, "B P D"]:
        """The phones with their pitch and energy."""
        x += self.of_pitch(pitch[..., None], count)
        return x + self.of_energy(energy[..., None], count)


class MelDecoder(nn.Module):
    """Frames to a log-mel spectrogram, and once more through a post-net."""

    n_mels: int
    blocks: int
    heads: int
    width: int
    channels: int
    post_channels: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B P D"], frames: Frames, dropout: float | None = None
    ) -> tuple[Float[Array, "B F M"], Float[Array, "B F M"]]:
        """(before, after) the post-net, standardised."""
        size = x.shape[-1]
        place = [frames.progress, 1.0 - frames.progress, jnp.log(frames.duration)]
        x = frames.spread(x) + Linear(size, name="place")(jnp.stack(place, axis=-1))
        x += 0.1 * sinusoids(x.shape[1], size)[None]
        x = jnp.where(frames.valid[..., None], x, 0.0)
        for i in range(self.blocks):
            block = FeedForwardTransformer(self.heads, self.width, self.channels, name=f"block{i}")
            x = block(x, frames.lengths, dropout)
        normal = nn.LayerNorm(epsilon=1e-5, name="norm")(x)
        mask = frames.valid[..., None]
        mel = jnp.where(mask, Linear(self.n_mels, name="mel")(normal), 0.0)
        inner = mel
        for i in range(2):
            layer = Convolution(self.post_channels, 5, name=f"post{i}")
            inner = Dropout()(jnp.tanh(layer(inner, frames.lengths)), dropout)
        finer = mel + Convolution(self.n_mels, 5, name="post_out")(inner, frames.lengths)
        return mel, jnp.where(mask, finer, 0.0)


class FastSpeech(nn.Module):
    """All of it; every part is a method, because training and synthesis join them differently."""

    settings: object  # config.model
    n_symbols: int
    n_speakers: int
    n_accents: int
    n_mels: int

    def setup(self):
        s = self.settings
        attention = {"heads": s.heads, "width": s.kernel, "channels": s.feedforward}
        self.encoder = PhoneEncoder(self.n_symbols, s.hidden, s.encoder_blocks, **attention)
        self.intensity = PhonePredictor(s.hidden)
        self.speaker = nn.Embed(self.n_speakers, s.hidden, embedding_init=small)
        self.accent = nn.Embed(self.n_accents, s.hidden, embedding_init=small)
        self.style = AccentStyle(self.n_accents, s.hidden, s.control in ("phone", "utterance"))
        self.adaptor = VarianceAdaptor(s.hidden)
        self.decoder = MelDecoder(
            self.n_mels, s.decoder_blocks, post_channels=s.post_channels, **attention
        )

    def encode(self, text: Text, dropout=None) -> Float[Array, "B P D"]:
        with jax.named_scope("encoder"):
            return self.encoder(text, dropout)

    def natural_intensity(
        self, encoded: Float[Array, "B P D"], text: Text, accent: Int[Array, " B"], dropout=None
    ) -> Float[Array, "B P"]:
        """How strong the accent's phones are of themselves, 0 to 1; 0 of L1 and silence."""
        x = encoded + jnp.where(text.valid[..., None], self.accent(accent)[:, None], 0.0)
        strength = jax.nn.sigmoid(self.intensity(x, text.lengths, dropout))
        return jnp.where(text.spoken & (accent > 0)[:, None], strength, 0.0)

    def accented(
        self, encoded: Float[Array, "B P D"], text: Text, voice: Voice
    ) -> Float[Array, "B P D"]:
        """The encoded phones with their accent, without the speaker."""
        with jax.named_scope("style"):
            return jnp.where(text.valid[..., None], encoded + self.style(encoded, text, voice), 0.0)

    def with_speaker(self, x: Float[Array, "B P D"], text: Text, speaker: Int[Array, " B"]):
        return jnp.where(text.valid[..., None], x + self.speaker(speaker)[:, None], 0.0)

    def prosody(self, x: Float[Array, "B P D"], text: Text, dropout=None) -> Prosody:
        return self.adaptor.predict(x, text.lengths, dropout)

    def decode(
        self, x: Float[Array, "B P D"], text: Text, pitch, energy, frames: Frames, dropout=None
    ):
        """Standardised mel [B, F, M] before and after the post-net."""
        with jax.named_scope("decoder"):
            x = self.adaptor.add(x, text.lengths, pitch, energy)
            return self.decoder(x, frames, dropout)

    def everything(self, text: Text, voice: Voice, frames: Frames) -> None:
        """Runs each part once; for `init`."""
        encoded = self.encode(text)
        self.natural_intensity(encoded, text, voice.accent)
        x = self.with_speaker(self.accented(encoded, text, voice), text, voice.speaker)
        prosody = self.prosody(x, text)
        self.decode(x, text, prosody.pitch, prosody.energy, frames)

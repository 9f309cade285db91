"""Noise on features (Fan et al., NMER, MRAC@ACM MM 2024; METHODS §4).

A diffusion schedule of T steps says how much of the signal is left after t of them,

    x̃ = √ᾱ_t · x + √(1 - ᾱ_t) · ε,

T is the intensity. In evaluation t and ε are pure functions of (seed, draw, split, utterance id),
so that every method meets the same noise, whatever its batches.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt

from mmer_jax.errors import UserError

NOISES = ("gaussian", "impulse")
SCHEDULES = ("linear", "scaled_linear", "cosine", "sigmoid")


def betas(schedule: str, n_steps: int, start: float = 0.01, end: float = 0.5) -> np.ndarray:
    """[T] β of a schedule; `cosine` does not use `start` and `end`."""
    if schedule == "linear":
        return np.linspace(start, end, n_steps)
    if schedule == "scaled_linear":
        return np.linspace(start**0.5, end**0.5, n_steps) ** 2
    if schedule == "sigmoid":
        return start + (end - start) / (1 + np.exp(-np.linspace(-6, 6, n_steps)))
    if schedule == "cosine":
        left = np.cos((np.arange(n_steps + 1) / n_steps + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1 - left[1:] / left[:-1], 0.999)
    raise UserError(f"noise.schedule is '{schedule}'; choose one of: {', '.join(SCHEDULES)}")


def scales(beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """([T] √ᾱ of the signal, [T] √(1 - ᾱ) of the noise) after each step."""
    left = np.cumprod(1 - np.asarray(beta, np.float64))
    return np.sqrt(left), np.sqrt(1 - left)


class Noise(NamedTuple):
    """How utterances are noised: [B] each, or [N] for a corpus.

    Attributes:
      seeds: of their random numbers.
      signal, scale: √ᾱ_t and √(1 - ᾱ_t).
      threshold: impulses stand where a uniform number exceeds it; None: Gaussian noise.
    """

    seeds: UInt[Array, " B"]
    signal: Float[Array, " B"]
    scale: Float[Array, " B"]
    threshold: Float[Array, ""] | None

    def take(self, rows: Int[Array, " b"]) -> "Noise":
        """That of some utterances."""
        return Noise(self.seeds[rows], self.signal[rows], self.scale[rows], self.threshold)


def add_noise(noise: Noise, x: Float[Array, "B ..."], channel: int) -> Float[Array, "B ..."]:
    """x̃; each `channel` (modality) gets its own ε.

    ε at a step does not depend on how many steps follow it, so padding changes nothing.
    """

    def draw(seed):
        key = jax.random.fold_in(jax.random.key(seed), channel)
        if noise.threshold is None:
            return jax.random.normal(key, x.shape[1:])
        sign_key, kept_key = jax.random.split(key)
        sign = 2.0 * jax.random.bernoulli(sign_key, 0.5, x.shape[1:]) - 1.0
        return sign * (jax.random.uniform(kept_key, x.shape[1:]) > noise.threshold)

    def spread(values):
        return values.reshape(-1, *[1] * (x.ndim - 1))

    return spread(noise.signal) * x + spread(noise.scale) * jax.vmap(draw)(noise.seeds)


class Corruption:
    """Noise in training, by `config.train` and `config.noise`; `corruption(config)` makes it."""

    def __init__(self, config):
        signal, scale = _table(config.noise, config.train.noise_steps)
        self._signal, self._scale = signal.astype(np.float32), scale.astype(np.float32)
        impulse = config.train.noise == "impulse"
        self._threshold = np.float32(config.noise.impulse_threshold) if impulse else None

    def of_batch(self, key: Array, batch_size: int) -> Noise:
        """One t for the batch, as published."""
        step_key, seed_key = jax.random.split(key)
        step = jax.random.randint(step_key, (), 0, len(self._signal))
        seeds = jax.random.bits(seed_key, (batch_size,))
        return self._noise(seeds, jnp.broadcast_to(step, (batch_size,)))

    def of_rows(self, rows: Int[Array, " B"]) -> Noise:
        """For validation: the same in every epoch, t and ε by the row of the corpus."""
        seeds = rows.astype(jnp.uint32)
        steps = jax.vmap(
            lambda seed: jax.random.randint(jax.random.key(~seed), (), 0, len(self._signal))
        )(seeds)
        return self._noise(seeds, steps)

    def _noise(self, seeds, steps) -> Noise:
        signal, scale = jnp.asarray(self._signal)[steps], jnp.asarray(self._scale)[steps]
        return Noise(seeds, signal, scale, self._threshold)


def corruption(config) -> Corruption | None:
    """None where `config.train.noise` is "none": what a pattern takes away is absent."""
    return None if config.train.noise == "none" else Corruption(config)


@dataclasses.dataclass(frozen=True)
class NoiseDraw:
    """One draw of an evaluation condition `kind:level`.

    Attributes:
      kind: one of `NOISES`.
      level: T, the number of steps of the schedule.
      seed, draw: of the random numbers.
    """

    kind: str
    level: int
    seed: int
    draw: int

    def of_corpus(self, ids: Sequence[str], settings, split: str) -> Noise:
        """[N]: t is uniform over the schedule's steps, drawn for each utterance.

        The numbers do not depend on the level: an utterance that gets little noise at one level
        gets little at the others.

        Args:
          ids: of the corpus.
          settings: `config.noise`.
          split: enters the random numbers.
        """
        numbers = np.frombuffer(
            b"".join(
                hashlib.blake2b(
                    f"noise|{self.seed}|{self.draw}|{split}|{name}".encode(), digest_size=8
                ).digest()
                for name in ids
            ),
            "<u4",
        ).reshape(-1, 2)
        signal, scale = _table(settings, self.level)
        step = np.minimum((numbers[:, 1] / 2.0**32 * self.level).astype(int), self.level - 1)
        return Noise(
            numbers[:, 0],
            signal[step].astype(np.float32),
            scale[step].astype(np.float32),
            np.float32(settings.impulse_threshold) if self.kind == "impulse" else None,
        )


def _table(settings, n_steps: int) -> tuple[np.ndarray, np.ndarray]:
    return scales(betas(settings.schedule, n_steps, settings.beta_start, settings.beta_end))

"""Evaluation conditions: what is scored, and the masks that every method shares.

A condition is a protocol, a name (as in results.csv) and the modalities that each utterance of the
corpus has left in each of its draws. `save_masks` writes them beside the results.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mmer_jax.data.corpus import Corpus
from mmer_jax.data.missing import (
    condition_name,
    dialogue_masks,
    full_pattern,
    missing_patterns,
    utterance_masks,
)
from mmer_jax.data.noise import NOISES, NoiseDraw
from mmer_jax.errors import UserError, shorten

PROTOCOLS = ("full", "pattern", "rate", "dialogue_rate", "imbalanced", "noise")
RATES = ("rate", "dialogue_rate", "imbalanced")  # those whose masks are drawn
SPLIT = "test"


@dataclasses.dataclass(frozen=True)
class Condition:
    """One row of a table.

    Attributes:
      protocol: one of `PROTOCOLS`.
      name: results.csv's `condition`.
      available: [draws, N, M] bool over the whole corpus.
      noise: of each draw, what stands in for what is not available; None: it is absent.
    """

    protocol: str
    name: str
    available: np.ndarray
    noise: tuple[NoiseDraw | None, ...]


def make_conditions(corpus: Corpus, settings) -> list[Condition]:
    """The conditions that `config.eval` asks for, in the order of its protocols.

    Raises:
      UserError: an unknown protocol, a rate outside [0, 1], a wrong number of rates, or a dialogue
        protocol on a corpus without dialogues.
    """
    if not settings.protocols:
        raise UserError(f"eval.protocols is empty; choose some of: {', '.join(PROTOCOLS)}")
    names = corpus.spec.names
    found: list[Condition] = []
    for protocol in settings.protocols:
        if protocol == "full":
            found += _fixed(protocol, full_pattern(len(names)), corpus)
        elif protocol == "pattern":
            found += _fixed(protocol, missing_patterns(len(names)), corpus)
        elif protocol in ("rate", "dialogue_rate"):
            for rate in settings.rates:
                _check_rates([rate], f"eval.rates holds {rate}")
                found.append(_drawn(protocol, f"{rate:.1f}", [rate] * len(names), corpus, settings))
        elif protocol == "imbalanced":
            for rates in _imbalanced_rates(settings, names):
                name = "+".join(f"{m}={r:g}" for m, r in zip(names, rates, strict=True))
                found.append(_drawn(protocol, name, rates, corpus, settings))
        elif protocol == "noise":
            found += _noised(corpus, settings)
        else:
            raise UserError(
                f"eval.protocols names '{protocol}'; choose some of: {', '.join(PROTOCOLS)}"
            )
    named = [f"{c.protocol} {c.name}" for c in found]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise UserError(f"config.eval asks for conditions twice: {shorten(twice)}")
    return found


def effective_rate(condition: Condition, corpus: Corpus, rows: np.ndarray) -> float:
    """The share of what `rows` have that the condition's masks take away."""
    present = corpus.present[rows][None]
    left = (condition.available[:, rows] & present).sum()
    return float(1 - left / (present.sum() * len(condition.available)))


def mask_digests(conditions: Sequence[Condition], corpus: Corpus, noise) -> dict[str, str]:
    """Protocol -> hex digest of its masks, ids and conditions: equal where results compare.

    `noise` is `config.noise`; it enters where conditions are noisy.
    """
    drawn = (*RATES, "noise")
    hashes = {c.protocol: hashlib.sha256() for c in conditions if c.protocol in drawn}
    for protocol, digest in hashes.items():
        digest.update("\n".join(map(str, corpus.ids)).encode())
        for c in conditions:
            if c.protocol == protocol:
                digest.update(c.name.encode())
                digest.update("".join(str(draw) for draw in c.noise if draw).encode())
                digest.update(np.packbits(c.available).tobytes())
    if "noise" in hashes:
        hashes["noise"].update(noise.to_json(sort_keys=True).encode())
    return {protocol: digest.hexdigest()[:16] for protocol, digest in hashes.items()}


def save_masks(folder: Path, conditions: Sequence[Condition], corpus: Corpus) -> None:
    """Write <protocol>.npz: `available` [conditions, draws, N, M] with the names of its axes."""
    for protocol in {c.protocol for c in conditions} & set(RATES):
        folder.mkdir(parents=True, exist_ok=True)
        mine = [c for c in conditions if c.protocol == protocol]
        np.savez_compressed(
            folder / f"{protocol}.npz",
            available=np.stack([c.available for c in mine]),
            conditions=np.array([c.name for c in mine]),
            utt_id=np.asarray(corpus.ids, dtype=str),
            modalities=np.array(corpus.spec.names),
        )


def _fixed(protocol: str, patterns: np.ndarray, corpus: Corpus) -> list[Condition]:
    shape = (1, len(corpus), len(corpus.spec.names))
    return [
        Condition(
            protocol, condition_name(p, corpus.spec.names), np.broadcast_to(p, shape), (None,)
        )
        for p in patterns
    ]


def _drawn(protocol: str, name: str, rates, corpus: Corpus, settings) -> Condition:
    draws = []
    for draw in range(settings.mask_draws):
        key = {"seed": settings.mask_seed, "draw": draw, "split": SPLIT}
        if protocol == "dialogue_rate":
            if "dialogue" not in corpus.columns:
                raise UserError(
                    "eval.protocols names 'dialogue_rate', which needs a column 'dialogue' in "
                    f"utterances.csv; it has: {', '.join(corpus.columns)}"
                )
            dialogues = corpus.columns["dialogue"]
            if (dialogues == "").any():
                raise UserError(
                    "eval.protocols names 'dialogue_rate', but utterances.csv gives "
                    f"{int((dialogues == '').sum())} utterances no dialogue: "
                    f"{shorten(corpus.ids[dialogues == ''])}"
                )
            draws.append(dialogue_masks(corpus.ids, dialogues, len(rates), rates[0], **key))
        else:
            draws.append(utterance_masks(corpus.ids, rates, **key))
    return Condition(protocol, name, np.stack(draws), (None,) * len(draws))


def _noised(corpus: Corpus, settings) -> Iterator[Condition]:
    """Type and level: all missing patterns, pooled, with noise where something is missing."""
    patterns = missing_patterns(len(corpus.spec.names))
    masks = np.broadcast_to(patterns[:, None], (len(patterns), len(corpus), patterns.shape[1]))
    for kind in settings.noise:
        if kind not in NOISES:
            raise UserError(f"eval.noise holds '{kind}'; choose some of: {', '.join(NOISES)}")
        for level in settings.noise_levels:
            if not isinstance(level, int) or level < 1:
                raise UserError(
                    f"eval.noise_levels holds {level!r}; a level is a number of steps, at least 1"
                )
            draws = [
                NoiseDraw(kind, level, settings.mask_seed, draw)
                for draw in range(settings.mask_draws)
            ]
            available = np.concatenate([masks] * len(draws))
            noise = tuple(draw for draw in draws for _ in patterns)
            yield Condition("noise", f"{kind}:{level}", available, noise)


def _imbalanced_rates(settings, names: Sequence[str]):
    if not settings.imbalanced:
        raise UserError(
            "eval.protocols names 'imbalanced': give eval.imbalanced, a tuple of tuples with one "
            f"rate for each of {', '.join(names)}"
        )
    for rates in settings.imbalanced:
        if len(rates) != len(names):
            raise UserError(
                f"eval.imbalanced holds {tuple(rates)}: expected one rate for each of "
                f"{', '.join(names)}"
            )
        _check_rates(rates, f"eval.imbalanced holds {tuple(rates)}")
        yield list(rates)


def _check_rates(rates, where: str) -> None:
    if not all(isinstance(r, int | float) and 0 <= r <= 1 for r in rates):
        raise UserError(f"{where}; a missing rate is a number from 0 to 1")

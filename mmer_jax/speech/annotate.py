"""What a trained recogniser adds to a feature directory: spans, goodness and intensity of phones.

The directory that `annotate` writes has the files of `extract_features`, with more columns in
phones.npz (COLUMNS) and, beside it, scaling.json (the intensity's scale, fitted on the training
utterances of all accents) and prosody.json (by what pitch and energy are standardised, and the
fingerprint of the features that all was measured on).
"""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from mmer_jax.data import feature_dir
from mmer_jax.data.corpus import MemorySource, RawModality
from mmer_jax.errors import UserError, shorten
from mmer_jax.records import write_atomically
from mmer_jax.speech import intensity
from mmer_jax.speech.batch import SpeechBatch
from mmer_jax.speech.cached import made_once
from mmer_jax.speech.dataset import SpeechData
from mmer_jax.speech.extract import MODALITIES, PHONE_COLUMNS
from mmer_jax.speech.recogniser import Recogniser, posterior_frames
from mmer_jax.speech.spans import completed, judge_phones

COLUMNS = (*PHONE_COLUMNS, "pitch", "energy", "goodness", "intensity")
BATCH = 32
VERSION = 3  # of what is written


def features_fingerprint(folder: Path) -> str:
    """Of the features that an annotated directory was measured on."""
    return json.loads((folder / "prosody.json").read_text(encoding="utf-8"))["features"]


class Judged(NamedTuple):
    """What the recogniser says of a batch."""

    durations: np.ndarray  # [B, P] feature frames: given, or by forced alignment
    goodness: np.ndarray  # [B, P]
    feasible: np.ndarray  # [B]


def annotate(folder: Path, recogniser: Recogniser, cache: Path, config) -> Path:
    """The annotated directory of a feature directory, made when it is not there yet.

    Args:
      folder: of `extract_features`.
      cache: where it goes.
      config: its section `intensity` says how goodness is scaled.

    Raises:
      UserError: an utterance has more phones than frames.
    """
    settings = json.dumps([VERSION, recogniser.fingerprint, *config.intensity.to_dict().values()])
    stamp = hashlib.blake2b(settings.encode(), digest_size=4).hexdigest()
    target = cache / f"annotated-{folder.name.removeprefix('features-')}-{stamp}"

    def make(unfinished: Path) -> None:
        columns, raw = feature_dir.read_raw(folder, MODALITIES)
        durations, scores = _judge(columns, raw, recogniser)
        _write(unfinished, columns, raw, durations, scores, config)

    return made_once(target, "prosody.json", make)


def judge(recogniser: Recogniser, batch: SpeechBatch) -> Judged:
    """Spans and goodness of the phones of a batch; pure JAX."""
    posteriors = recogniser.log_posteriors(batch.mel, batch.n_frames)
    durations, feasible = completed(posteriors, batch)
    frames = posterior_frames(batch.n_frames)
    _, scores = judge_phones(posteriors, frames, batch.phones, batch.n_phones)
    return Judged(durations, scores, feasible)


def _judge(columns, raw: dict[str, RawModality], recogniser: Recogniser):
    """([sum P] durations, [sum P] goodness) of all utterances."""
    lengths = {name: np.asarray(raw[name].lengths, np.int32) for name in ("mel", "phones")}
    data = SpeechData(columns, MemorySource(raw), lengths["mel"], lengths["phones"], "")
    ask = jax.jit(lambda batch: judge(recogniser, batch))
    parts: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    tables = data.batches(np.arange(len(data)), BATCH, None)
    infeasible: list[str] = []
    for table, batch in zip(tables, data.stream(tables), strict=True):
        found = jax.tree.map(np.asarray, ask(batch))
        for place, row in enumerate(table):
            if row >= 0:
                count = lengths["phones"][row]
                parts[row] = found.durations[place, :count], found.goodness[place, :count]
                if not found.feasible[place]:
                    infeasible.append(str(columns["utt_id"][row]))
    if infeasible:
        raise UserError(f"more phones than frames of audio: {shorten(infeasible)}")
    rows = [parts[row] for row in range(len(data))]
    return tuple(np.concatenate(column) for column in zip(*rows, strict=True))


def _write(folder: Path, columns, raw, durations, scores, config) -> None:
    spoken = raw["phones"].features[:, 1] >= 0
    trained = np.repeat(columns["split"] == "train", raw["phones"].lengths)
    if not (spoken & trained).any():
        raise UserError("the corpus has no utterance in split 'train', which scales are fitted on")
    scale = intensity.fit(
        scores[spoken & trained], config.intensity.scaling, config.intensity.quantile
    )
    values = np.where(spoken, scale.intensity(scores), 0.0)
    prosody, statistics = _prosody(raw["prosody"].features, durations, spoken, trained)
    table = np.column_stack([raw["phones"].features[:, :2], durations, prosody, scores, values])
    phones = RawModality(table.astype(np.float32), raw["phones"].lengths, "features")
    feature_dir.write_directory(folder, columns, raw | {"phones": phones})
    statistics["features"] = feature_dir.fingerprint(columns, raw)
    scale.save(folder / "scaling.json")
    write_atomically(folder / "prosody.json", json.dumps(statistics, indent=1) + "\n")


def _prosody(frames: np.ndarray, durations: np.ndarray, spoken, trained):
    """([sum P, 2] standardised pitch and energy, their means and standard deviations)."""
    energy, log_f0, voiced = frames.T
    phone = np.repeat(np.arange(len(durations)), durations)
    weight = np.where(voiced > 0, 1.0, 1e-3)  # unvoiced frames count where there are no others

    def mean(values, weights):
        total = np.bincount(phone, weights, len(durations))
        return np.bincount(phone, weights * values, len(durations)) / np.maximum(total, 1e-9)

    raw = np.stack([mean(log_f0, weight), mean(energy, np.ones_like(energy))], axis=1)
    chosen = raw[spoken & trained]
    centre, spread = chosen.mean(axis=0), chosen.std(axis=0) + 1e-9
    statistics = {
        name: {"mean": float(centre[i]), "std": float(spread[i])}
        for i, name in enumerate(("pitch", "energy"))
    }
    return np.where((durations > 0)[:, None], (raw - centre) / spread, 0.0), statistics

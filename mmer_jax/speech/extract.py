"""From a corpus to features: a feature directory with one .npz for each kind, made once.

    utterances.csv  utt_id, text, speaker, accent, split
    mel.npz         log-mel spectrum [sum F, 80]
    prosody.npz     [sum F, 3]: log energy, log F0, voiced
    phones.npz      [sum P, 3]: phone, word, duration in frames (PHONE_COLUMNS)
    faults.csv      utterances that were left out, and why

It is the format of every feature directory here, so records and pipeline are the same too.
"""

import csv
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmer_jax.data import feature_dir
from mmer_jax.data.corpus import RawModality
from mmer_jax.errors import UserError
from mmer_jax.records import write_atomically
from mmer_jax.speech import features
from mmer_jax.speech.audio import read_audio
from mmer_jax.speech.cached import made_once
from mmer_jax.speech.corpus import SpeechCorpus, Utterance
from mmer_jax.speech.labels import Labels, read_labels

MODALITIES = ("mel", "prosody", "phones")
PHONE_COLUMNS = ("phone", "word", "duration")
STRIDE = 2  # feature frames to one of the recogniser's; a phone needs one of them
SPLITS = ("", "train", "dev", "test", "dev_seen", "test_seen")
SHOWN = 5  # faults; all of them are in faults.csv
_VERSION = "1"  # of what is extracted


class Extracted(NamedTuple):
    """Features of one utterance."""

    mel: np.ndarray  # [F, 80]
    prosody: np.ndarray  # [F, 3]
    labels: Labels


def extract(corpus: SpeechCorpus, utterance: Utterance) -> Extracted:
    """Features and labels of an utterance; UserError for whatever is wrong with it."""
    if utterance.split not in SPLITS:
        raise UserError(
            f"{utterance.utt_id}: its split is '{utterance.split}'; expected one of: "
            f"{', '.join(SPLITS[1:])}; empty: by a hash of the text"
        )
    path = corpus.audio_path(utterance)
    audio = read_audio(path)
    spectrum = features.magnitudes(audio)
    labels = read_labels(corpus, utterance, len(audio) / features.RATE, len(spectrum))
    if len(labels.ids) > -(-len(spectrum) // STRIDE):
        raise UserError(
            f"{path}: {len(labels.ids)} phones (silence at both ends among them) in "
            f"{len(spectrum)} frames of {1000 * features.FRAME_SECONDS:.0f} ms; each needs "
            f"{STRIDE}. Is it the audio of this text?"
        )
    log_f0, voiced = features.pitch(audio)
    prosody = np.stack([features.log_energy(spectrum), log_f0, voiced], axis=1)
    return Extracted(features.log_mel(spectrum), prosody.astype(np.float32), labels)


def extract_features(corpus: SpeechCorpus, cache: Path, say: Callable[[str], None] = print) -> Path:
    """The feature directory of a corpus in `cache`, made when it is not there yet.

    Faulty utterances are named through `say` and in faults.csv, and left out.

    Raises:
      UserError: no utterance is without fault.
    """
    folder = cache.expanduser() / f"features-{corpus.root.resolve().name}-{_stamp(corpus)}"

    def make(unfinished: Path) -> None:
        found, faults = _extract_all(corpus)
        for utt_id, fault in list(faults.items())[:SHOWN]:
            say(f"left out: {utt_id}: {fault}")
        if len(faults) > SHOWN:
            say(f"left out: {len(faults) - SHOWN} more; all are in {folder / 'faults.csv'}")
        if not found:
            raise UserError(f"{corpus.root}: all {len(faults)} utterances are faulty, see above")
        _write(unfinished, corpus, found, faults)

    return made_once(folder, "utterances.csv", make)


def _extract_all(corpus: SpeechCorpus) -> tuple[dict[str, Extracted], dict[str, str]]:
    found, faults = {}, {}
    for utterance in corpus.utterances:
        try:
            found[utterance.utt_id] = extract(corpus, utterance)
        except UserError as error:
            faults[utterance.utt_id] = str(error)
    return found, faults


def _write(folder: Path, corpus: SpeechCorpus, found: dict[str, Extracted], faults) -> None:
    good = [u for u in corpus.utterances if u.utt_id in found]
    splits = [u.split or split_of(u.text) for u in good]
    columns = {name: [getattr(u, name) for u in good] for name in ("utt_id", "text", "speaker")}
    columns |= {"accent": [u.accent for u in good], "split": splits}
    every = [found[u.utt_id] for u in good]
    tables = [np.stack([e.labels.ids, e.labels.words, e.labels.durations], axis=1) for e in every]
    raw = {
        "mel": pack([e.mel for e in every]),
        "prosody": pack([e.prosody for e in every]),
        "phones": pack(tables),
    }
    feature_dir.write_directory(folder, columns, raw)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("utt_id", "fault"), *faults.items()])
    write_atomically(folder / "faults.csv", text.getvalue())


def pack(arrays: list[np.ndarray]) -> RawModality:
    """Sequences [T, D] one after another, in float32."""
    lengths = np.array([len(a) for a in arrays], np.int64)
    return RawModality(np.concatenate(arrays).astype(np.float32), lengths, "features")


def split_of(text: str) -> str:
    """train, dev or test by a hash of the text: a sentence is never in two of them."""
    place = hashlib.blake2b(" ".join(text.lower().split()).encode(), digest_size=2).digest()
    share = int.from_bytes(place, "little") / 2**16
    return "train" if share < 0.8 else "dev" if share < 0.9 else "test"


def _stamp(corpus: SpeechCorpus) -> str:
    """Changes with utterances.csv and with any file that it names."""
    digest = hashlib.blake2b(_VERSION.encode(), digest_size=6)
    for utterance in corpus.utterances:
        digest.update(repr(utterance).encode())
        try:
            paths = [corpus.audio_path(utterance), corpus.alignment_path(utterance)]
        except UserError:
            continue  # told when the utterance is read
        for path in paths:
            if path is not None:
                digest.update(f"{path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    return digest.hexdigest()

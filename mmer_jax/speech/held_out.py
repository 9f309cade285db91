"""What a trained Ai-TTS gets right on held-out sentences: durations, pitch, energy and spectra.

prosody.csv: errors of the variance adaptor's predictions beside those of saying each phone's mean
over the training speech. distortion.csv: mel-cepstral distortion against the recordings.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
import numpy as np

from mmer_jax.records import write_atomically
from mmer_jax.speech.aitts import AiTTS
from mmer_jax.speech.batch import SpeechBatch
from mmer_jax.speech.cepstral import distortion
from mmer_jax.speech.dataset import SpeechData
from mmer_jax.speech.fastspeech import Text, Voice
from mmer_jax.speech.features import FRAME_SECONDS, log_mel, magnitudes
from mmer_jax.speech.phones import N_SYMBOLS
from mmer_jax.speech.vocoder import Vocoder
from mmer_jax.speech.voice import Request, Synthesiser

QUANTITIES = {"duration": "ms", "pitch": "standard deviations", "energy": "standard deviations"}
Table = dict[str, np.ndarray]  # a column of numbers for each name, [n phones]


def spoken_phones(batches: Iterable[SpeechBatch]) -> Table:
    """Every spoken phone of the batches: what it is, of which voice, and its prosody."""
    found: dict[str, list] = {name: [] for name in ("phone", "accent", "speaker", *QUANTITIES)}
    for batch in batches:
        there = _there(batch)
        found["phone"].append(np.asarray(batch.phones)[there])
        for name in ("accent", "speaker"):
            of_row = np.asarray(getattr(batch, name))[:, None]
            found[name].append(np.broadcast_to(of_row, there.shape)[there])
        for name, values in _prosody(batch).items():
            found[name].append(values[there])
    return {name: np.concatenate(parts) for name, parts in found.items()}


def predictions(model: AiTTS, params, batches: Sequence[SpeechBatch], *, told: bool) -> Table:
    """What the adaptor predicts of the phones of `spoken_phones`, in the same order.

    Args:
      model, params: of one trial.
      batches: of held-out utterances.
      told: the measured intensities are given; otherwise they are predicted as well.
    """

    @jax.jit
    def predict(params, batch: SpeechBatch):
        text = Text(batch.phones, batch.words)
        intensity = batch.intensity
        if not told:
            intensity = model.natural_intensity(params, text, batch.accent)
        voice = Voice(batch.speaker, batch.accent, model.shaped(intensity, text))
        return model.plan(params, text, voice)[1]

    found: dict[str, list] = {name: [] for name in QUANTITIES}
    for batch in batches:
        prosody, there = predict(params, batch), _there(batch)
        seconds = np.exp(np.asarray(prosody.log_duration)) * FRAME_SECONDS
        found["duration"].append(1000 * seconds[there])
        found["pitch"].append(np.asarray(prosody.pitch)[there])
        found["energy"].append(np.asarray(prosody.energy)[there])
    return {name: np.concatenate(parts) for name, parts in found.items()}


def phone_means(training: Table, truth: Table, *, by_speaker: bool = False) -> Table:
    """For each phone of `truth` the mean over the training speech's phones of that kind.

    Args:
      by_speaker: of the same speaker. A speaker's own mean pitch is half of what there is to know.
    """
    kinds = [
        table["phone"] + N_SYMBOLS * by_speaker * table["speaker"] for table in (training, truth)
    ]
    size = 1 + max(int(kind.max()) for kind in kinds)
    counts = np.bincount(kinds[0], minlength=size)
    found = {}
    for name in QUANTITIES:
        sums = np.bincount(kinds[0], weights=training[name], minlength=size)
        whole = training[name].mean()  # for a phone that training has not
        found[name] = np.where(counts > 0, sums / np.maximum(counts, 1), whole)[kinds[1]]
    return found


def prosody_errors(
    model: AiTTS, params, data: SpeechData, training_rows, rows
) -> list[dict[str, object]]:
    """Lines of prosody.csv: root mean squared and mean absolute errors by quantity and accent."""
    batches = list(data.stream(data.batches(rows, 16, None)))
    truth = spoken_phones(batches)
    training = spoken_phones(data.stream(data.batches(training_rows, 16, None)))
    guesses = {
        "phone's mean": phone_means(training, truth),
        "phone's mean of the speaker": phone_means(training, truth, by_speaker=True),
        "predicted, intensities given": predictions(model, params, batches, told=True),
        "predicted, plain text": predictions(model, params, batches, told=False),
    }
    groups = {"L1": truth["accent"] == 0, "L2": truth["accent"] > 0}
    lines = []
    for name, unit in QUANTITIES.items():
        for group, mine in groups.items():
            if not mine.any():
                continue
            for system, guess in guesses.items():
                error = (guess[name] - truth[name])[mine]
                line = {"quantity": name, "unit": unit, "speech": group, "system": system}
                rmse, mae = np.sqrt(np.mean(error**2)), np.mean(np.abs(error))
                lines.append(line | {"rmse": rmse, "mae": mae, "phones": int(mine.sum())})
    return lines


def distortions(
    synthesiser: Synthesiser, data: SpeechData, rows, vocoder: Vocoder
) -> list[dict[str, object]]:
    """Lines of distortion.csv: one for each held-out recording, in dB.

    `mel` is of the synthesised spectrogram, told the measured intensities (L1: 0); `no_accent` of
    the same at intensity 0; `audio` of what the vocoder makes of it; `vocoder` of the recording's
    own spectrogram through the vocoder, which no synthesis can beat.
    """
    requests, mels = [], []
    for batch in data.stream(data.batches(rows, 16, None)):
        for i in np.flatnonzero(np.asarray(batch.weights) > 0):
            requests.append(_request(synthesiser, batch, i))
            mels.append(np.asarray(batch.mel)[i, : batch.n_frames[i]])
    told = synthesiser.speak(requests)
    weakest = 0.0 if synthesiser.takes_intensities else None
    plain = synthesiser.speak([request._replace(intensity=weakest) for request in requests])
    lines = []
    for request, recorded, mine, bare in zip(requests, mels, told, plain, strict=True):
        line: dict[str, object] = {"speaker": request.speaker, "accent": request.accent or "L1"}
        line["mel"] = distortion(mine.mel, recorded)
        line["no_accent"] = distortion(bare.mel, recorded)
        line["audio"] = distortion(_through(vocoder, mine.mel), recorded)
        line["vocoder"] = distortion(_through(vocoder, recorded), recorded)
        lines.append(line)
    return lines


def write_table(path: Path, lines: Sequence[dict[str, object]]) -> None:
    """Lines of the same keys as CSV, floats with six digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in line.items()})
    write_atomically(path, text.getvalue())


def _request(synthesiser: Synthesiser, batch: SpeechBatch, row: int) -> Request:
    """To say what a recording says, as it says it."""
    count = int(batch.n_phones[row])
    accent = synthesiser.accents[int(batch.accent[row])]
    measured = np.asarray(batch.intensity)[row, :count] if accent else 0.0
    return Request(
        np.asarray(batch.phones)[row, :count],
        np.asarray(batch.words)[row, :count],
        synthesiser.speakers[int(batch.speaker[row])],
        accent,
        measured if synthesiser.takes_intensities else None,
    )


def _through(vocoder: Vocoder, mel: np.ndarray) -> np.ndarray:
    return log_mel(magnitudes(vocoder(mel)))


def _there(batch: SpeechBatch) -> np.ndarray:
    """[B, P] the spoken phones of real rows."""
    return (np.asarray(batch.words) >= 0) & (np.asarray(batch.weights)[:, None] > 0)


def _prosody(batch: SpeechBatch) -> Table:
    durations = 1000 * FRAME_SECONDS * np.asarray(batch.durations, np.float32)
    return dict(zip(QUANTITIES, (durations, batch.pitch, batch.energy), strict=True))

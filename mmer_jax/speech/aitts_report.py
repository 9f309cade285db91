"""What follows the training of Ai-TTS: errors on held-out sentences, and the page of samples."""

from pathlib import Path

import numpy as np
from rich.console import Console

from mmer_jax.speech.aitts_task import AiTTSTask, seen
from mmer_jax.speech.held_out import distortions, prosody_errors, write_table
from mmer_jax.speech.held_out_sentences import Sentence, held_out_sentences
from mmer_jax.speech.listener import Heard, hear_audio
from mmer_jax.speech.samples import Sample, write_page
from mmer_jax.speech.trained_voice import make_synthesiser
from mmer_jax.speech.vocoder import griffin_lim
from mmer_jax.speech.voice import Request, Spoken, Synthesiser

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the page of samples


def write_report(workdir: Path, task: AiTTSTask, params, console: Console) -> None:
    """prosody.csv, distortion.csv and samples.html in `workdir`.

    Args:
      workdir: of the run.
      task: what was trained.
      params: of one trial.
      console: where the main numbers are said.
    """
    rows = seen(task.data, "test")
    synthesiser = make_synthesiser(task.config, task.facts, params)
    prosody = prosody_errors(task.model, params, task.data, task.train_rows, rows)
    write_table(workdir / "prosody.csv", prosody)
    for line in prosody:
        console.print(
            f"{line['quantity']:9} {line['speech']}  {line['system']:29} RMSE {line['rmse']:7.3f} "
            f"{line['unit']}",
            highlight=False,
        )
    found = distortions(synthesiser, task.data, rows, griffin_lim)
    write_table(workdir / "distortion.csv", found)
    means = {name: np.mean([line[name] for line in found]) for name in list(found[0])[2:]}
    said = "  ".join(f"{name} {value:.2f} dB" for name, value in means.items())
    console.print(f"mel-cepstral distortion, {len(found)} utterances: {said}", highlight=False)
    sentence = held_out_sentences(task.data, "test", 1)[0]
    write_samples(workdir / "samples.html", task, synthesiser, sentence)
    console.print(f"samples {workdir / 'samples.html'}", highlight=False, soft_wrap=True)


def write_samples(
    path: Path, task: AiTTSTask, synthesiser: Synthesiser, sentence: Sentence
) -> None:
    """One held-out sentence: the L1 recording, and every accent at rising intensity."""
    recording = griffin_lim(sentence.mel)
    heard = _heard(task, recording, sentence)
    caption = f"measured intensity {heard.mean:.2f}"
    first = Sample(
        caption, recording, sentence.mel, sentence.phones, sentence.durations, heard.intensity
    )
    page = [("L1 recording through Griffin-Lim", [first])]
    levels = LEVELS if synthesiser.model.control != "none" else (None,)
    for accent in synthesiser.accents[1:]:
        speaker = synthesiser.speaker_of(accent)
        requests = [
            Request(sentence.phones, sentence.words, speaker, accent, level) for level in levels
        ]
        spoken = synthesiser.speak(requests)
        samples = [
            _sample(task, request, one, sentence)
            for request, one in zip(requests, spoken, strict=True)
        ]
        page.append((f"accent {accent}, speaker {speaker}", samples))
    about = [
        f"“{sentence.text}” – a sentence that training has not seen. Sounds are made by "
        "Griffin-Lim, which blurs them. Phones are coloured by the intensity that the recogniser "
        "measures in the sound, from white (0) to red (1).",
        "No listening test was run: all numbers are the recogniser's.",
    ]
    write_page(path, "Ai-TTS: samples", about, page)


def _sample(task: AiTTSTask, request: Request, spoken: Spoken, sentence: Sentence) -> Sample:
    audio = griffin_lim(spoken.mel)
    heard = _heard(task, audio, sentence)
    asked = "" if request.intensity is None else f"requested {request.intensity:.2f}, "
    return Sample(
        f"{asked}measured {heard.mean:.2f}",
        audio,
        spoken.mel,
        request.phones,
        spoken.durations,
        heard.intensity,
    )


def _heard(task: AiTTSTask, audio: np.ndarray, sentence: Sentence) -> Heard:
    assert task.model.judge is not None
    return hear_audio(task.model.judge, audio, sentence.phones, sentence.words)

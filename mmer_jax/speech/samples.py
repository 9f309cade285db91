"""The page of samples: one sentence with every accent at rising intensity, to listen to and see.

One HTML file holds sounds and pictures, so that it can be sent to someone.
"""

import base64
import html
import io
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mmer_jax.records import write_atomically
from mmer_jax.report.figures.drawing import look, new_figure
from mmer_jax.report.page import STYLE
from mmer_jax.speech.features import FRAME_SECONDS, HIGHEST, RATE
from mmer_jax.speech.phones import PHONES, SIL

MORE_STYLE = """
body { max-width: 90rem; }
figure { display: inline-block; margin: .4rem .6rem 1.2rem 0; }
figcaption { font-size: .87rem; }
audio { width: 100%; }
"""


class Sample(NamedTuple):
    """A sound with its picture."""

    caption: str
    audio: Float[np.ndarray, " n"]
    mel: Float[np.ndarray, "F M"]
    phones: Int[np.ndarray, " P"]
    durations: Int[np.ndarray, " P"]  # frames
    intensity: Float[np.ndarray, " P"]


def write_page(
    path: Path, title: str, about: Sequence[str], rows: Sequence[tuple[str, Sequence[Sample]]]
) -> None:
    """Write the page.

    Args:
      path: of the HTML file.
      title: of the page.
      about: paragraphs above the samples.
      rows: (heading, samples from left to right).
    """
    parts = [f"<h1>{html.escape(title)}</h1>", *(f"<p>{html.escape(text)}</p>" for text in about)]
    for heading, samples in rows:
        parts += [f"<h2>{html.escape(heading)}</h2>", *map(_figure, samples)]
    write_atomically(
        path,
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}{MORE_STYLE}</style>\n</head>\n"
        f"<body>\n{chr(10).join(parts)}\n</body>\n</html>\n",
    )


def _figure(sample: Sample) -> str:
    caption = html.escape(sample.caption)
    return (
        f'<figure><img alt="Spectrogram: {caption}" src="{_data("image/png", picture(sample))}">'
        f'<audio controls preload="none" src="{_data("audio/wav", wav_bytes(sample.audio))}">'
        f"</audio><figcaption>{caption}</figcaption></figure>"
    )


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def wav_bytes(audio: Float[np.ndarray, " n"]) -> bytes:
    """A wav file of 16 bits."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes())
    return content.getvalue()


def picture(sample: Sample) -> bytes:
    """PNG: the spectrogram with its phones below, coloured by intensity."""
    seconds = len(sample.mel) * FRAME_SECONDS
    with look():
        figure = new_figure(1.9, width=max(2.4, 1.6 * seconds))
        axes, strip = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
        extent = (0, seconds, 0, sample.mel.shape[1])
        axes.imshow(sample.mel.T, origin="lower", aspect="auto", cmap="magma", extent=extent)
        axes.set(yticks=[], ylabel=f"mel, to {HIGHEST / 1000:g} kHz")
        _draw_phones(strip, sample)
        strip.set(yticks=[], ylim=(0, 1), xlabel="seconds")
        axes.grid(False)
        strip.grid(False)
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=110)
    return content.getvalue()


def _draw_phones(axes, sample: Sample) -> None:
    """A box for each phone, from white (intensity 0) to red (1)."""
    ends = np.cumsum(sample.durations) * FRAME_SECONDS
    starts = ends - sample.durations * FRAME_SECONDS
    for phone, start, end, value in zip(sample.phones, starts, ends, sample.intensity, strict=True):
        if phone == SIL:
            continue
        axes.axvspan(start, end, color=(1.0, 1 - 0.75 * value, 1 - value), lw=0)
        axes.text((start + end) / 2, 0.5, PHONES[phone], ha="center", va="center", fontsize=5)

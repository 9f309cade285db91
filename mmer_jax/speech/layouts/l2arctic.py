"""L2-ARCTIC 5.0: 24 speakers of six first languages, the sentences of CMU ARCTIC.

    python -m mmer_jax.speech.layouts.l2arctic L2-ARCTIC OUT

A speaker's folder has wav/, transcript/ and textgrid/ (MFA's alignments).
"""

import sys
from pathlib import Path

from mmer_jax.errors import UserError
from mmer_jax.speech.corpus import Utterance
from mmer_jax.speech.layouts import importing

ACCENTS = {
    "ar": ("ABA", "SKA", "YBAA", "ZHAA"),
    "cmn": ("BWC", "LXC", "NCC", "TXHC"),
    "hi": ("ASI", "RRBI", "SVBI", "TNI"),
    "ko": ("HJK", "HKK", "YDCK", "YKWK"),
    "es": ("EBVS", "ERMS", "MBMPS", "NJS"),
    "vi": ("HQTV", "PNV", "THV", "TLV"),
}
_ACCENT_OF = {speaker: accent for accent, names in ACCENTS.items() for speaker in names}


def find(root: Path) -> list[importing.Found]:
    """The utterances of all speakers whose folders are there."""
    if not root.is_dir():
        raise UserError(f"{root} is no folder; expected the one with L2-ARCTIC's speakers")
    speakers = [name for name in sorted(_ACCENT_OF) if (root / name / "wav").is_dir()]
    if not speakers:
        raise UserError(
            f"{root} has no speaker's folder with a folder wav, such as {root / 'ABA' / 'wav'}"
        )
    return [found for speaker in speakers for found in _of_speaker(root / speaker)]


def _of_speaker(folder: Path) -> list[importing.Found]:
    found = []
    for audio in sorted((folder / "wav").glob("*.wav")):
        text = folder / "transcript" / f"{audio.stem}.txt"
        grid = folder / "textgrid" / f"{audio.stem}.TextGrid"
        try:
            words = text.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            print(f"left out: {text} cannot be read: {error}", file=sys.stderr)
            continue
        utterance = Utterance(
            utt_id=f"{folder.name}_{audio.stem}",
            text=words,
            speaker=folder.name,
            accent=_ACCENT_OF[folder.name],
        )
        found.append(importing.Found(utterance, audio, grid if grid.exists() else None))
    return found


if __name__ == "__main__":
    sys.exit(importing.run("l2arctic", "Import L2-ARCTIC.", find))

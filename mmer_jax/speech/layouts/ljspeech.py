"""LJSpeech 1.1: one L1 speaker, metadata.csv and wavs/.

    python -m mmer_jax.speech.layouts.ljspeech LJSpeech-1.1 OUT

A line of metadata.csv is ID|text as printed|text as read; the last one counts.
"""

import sys
from pathlib import Path

from mmer_jax.data.paths import check_names
from mmer_jax.errors import UserError
from mmer_jax.speech.corpus import Utterance
from mmer_jax.speech.layouts import importing

SPEAKER = "LJ"


def find(root: Path) -> list[importing.Found]:
    """The utterances of metadata.csv."""
    path = root / "metadata.csv"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}; expected a folder of LJSpeech") from None
    found = []
    for number, line in enumerate(filter(None, lines), start=1):
        fields = line.split("|")
        if len(fields) != 3:
            raise UserError(f"{path}, line {number}: {len(fields)} fields, expected ID|text|text")
        utterance = Utterance(fields[0], fields[2], speaker=SPEAKER)
        found.append(importing.Found(utterance, root / "wavs" / f"{fields[0]}.wav", None))
    check_names((f.utterance.utt_id for f in found), str(path))
    return found


if __name__ == "__main__":
    sys.exit(importing.run("ljspeech", "Import LJSpeech 1.1.", find))

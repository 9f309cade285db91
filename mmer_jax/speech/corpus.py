"""A corpus of utterances: a folder with utterances.csv and audio files.

    utt_id,audio,text,speaker,accent,phones,alignment,split

`utt_id` and `text` are needed. Without `audio` the file is <utt_id>.wav or .flac; without `accent`
(or where it is empty) the speech is L1. `phones` are ARPAbet, words separated by '|'; `alignment`
is a Praat TextGrid; `split` names the part that an utterance is for.
"""

import csv
import dataclasses
import io
from pathlib import Path

from mmer_jax.data import feature_dir
from mmer_jax.data.paths import check_names, file_inside
from mmer_jax.errors import UserError
from mmer_jax.records import write_atomically

ENDINGS = (".wav", ".flac")
_COLUMNS = ("utt_id", "audio", "text", "speaker", "accent", "phones", "alignment", "split")
_NEEDED = ("utt_id", "text")


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One line of utterances.csv; its files have not been looked at."""

    utt_id: str
    text: str
    audio: str = ""  # within the folder of the corpus, as is `alignment`
    speaker: str = ""
    accent: str = ""  # "": L1
    phones: str = ""
    alignment: str = ""
    split: str = ""


@dataclasses.dataclass(frozen=True)
class SpeechCorpus:
    """Utterances and the folder that their files lie in."""

    root: Path
    utterances: tuple[Utterance, ...]

    def audio_path(self, utterance: Utterance) -> Path:
        """The audio file; UserError if there is none, or if it lies outside of the folder."""
        if utterance.audio:
            return file_inside(self.root, self.root / utterance.audio)
        for ending in ENDINGS:
            path = self.root / f"{utterance.utt_id}{ending}"
            if path.exists():
                return file_inside(self.root, path)
        raise UserError(
            f"{self.root / utterance.utt_id}: there is neither {' nor '.join(ENDINGS)}; add a "
            "column 'audio' to utterances.csv"
        )

    def alignment_path(self, utterance: Utterance) -> Path | None:
        """The TextGrid, checked as the audio is; None if the utterance names none."""
        if not utterance.alignment:
            return None
        return file_inside(self.root, self.root / utterance.alignment)


def read_corpus(root: str | Path) -> SpeechCorpus:
    """The corpus in a folder.

    Raises:
      UserError: there is no utterances.csv, or it is faulty.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise UserError(f"{root} is no folder; expected one with utterances.csv and audio files")
    path = root / "utterances.csv"
    columns = feature_dir.read_utterances(path)
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        raise UserError(
            f"{path} has no column '{missing[0]}'; its columns are: {', '.join(columns)}"
        )
    check_names(map(str, columns["utt_id"]), str(path))
    known = {name: columns[name] for name in _COLUMNS if name in columns}
    rows = zip(*known.values(), strict=True)
    return SpeechCorpus(
        root, tuple(Utterance(**dict(zip(known, map(str, row), strict=True))) for row in rows)
    )


def write_corpus(root: Path, utterances: list[Utterance]) -> None:
    """Write utterances.csv as a whole; the files that it names are the caller's."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(utterance) for utterance in utterances)
    write_atomically(root / "utterances.csv", text.getvalue())

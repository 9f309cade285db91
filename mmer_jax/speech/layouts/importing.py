"""What the importers share: their command line, and the folder that they write."""

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from mmer_jax import cli
from mmer_jax.errors import UserError, shorten
from mmer_jax.speech.audio import read_audio, write_audio
from mmer_jax.speech.corpus import Utterance, read_corpus, write_corpus


class Found(NamedTuple):
    """An utterance of a release and where its files are."""

    utterance: Utterance
    audio: Path
    alignment: Path | None


def copy_corpus(found: Sequence[Found], out: Path) -> list[str]:
    """Write audio (16 kHz FLAC), TextGrids and utterances.csv into the folder `out`.

    Where `out` is a corpus already, the utterances are added to it: L1 of one release and accents
    of another make a corpus to train on.

    Returns:
      Remarks for the user: which utterances were left out, and why.

    Raises:
      UserError: `out` is something else, or has an utterance of that name; or nothing could be
        read.
    """
    before = _already(out)
    if not found:
        raise UserError("the release has no utterance")
    known = {utterance.utt_id for utterance in before}
    again = [item.utterance.utt_id for item in found if item.utterance.utt_id in known]
    if again:
        raise UserError(
            f"{out} already has {len(again)} of these utterances: {shorten(again)}; choose "
            "another folder, or delete it"
        )
    good, faults = [], []
    for utterance, audio, alignment in found:
        try:
            samples = read_audio(audio)
        except UserError as error:
            faults.append(str(error))
            continue
        (out / "audio").mkdir(parents=True, exist_ok=True)
        name = f"audio/{utterance.utt_id}.flac"
        write_audio(out / name, samples)
        good.append(dataclasses.replace(utterance, audio=name))
        if alignment is not None:
            (out / "alignment").mkdir(exist_ok=True)
            grid = f"alignment/{utterance.utt_id}.TextGrid"
            shutil.copyfile(alignment, out / grid)
            good[-1] = dataclasses.replace(good[-1], alignment=grid)
    if not good:
        raise UserError(f"no audio of the release could be read: {shorten(faults)}")
    write_corpus(out, [*before, *good])
    return [f"left out {len(faults)} utterance(s): {shorten(faults)}"] if faults else []


def _already(out: Path) -> tuple[Utterance, ...]:
    """The utterances of a corpus that is there."""
    if (out / "utterances.csv").exists():
        return read_corpus(out).utterances
    if out.exists():
        raise UserError(
            f"{out} exists and is no corpus (it has no utterances.csv); choose another folder"
        )
    return ()


def _next(out: Path) -> str:
    """What can be done with the folder."""
    accents = {utterance.accent for utterance in read_corpus(out).utterances}
    if "" not in accents:
        return f"it has no L1 speech yet, which training needs; import some into {out} as well"
    return f"train with --config.data.corpus={out}"


def run(layout: str, about: str, find: Callable[[Path], list[Found]], argv=None) -> int:
    """The command `python -m mmer_jax.speech.layouts.LAYOUT ROOT OUT`; its exit status."""
    parser = cli.Parser(prog=f"python -m mmer_jax.speech.layouts.{layout}", description=about)
    parser.add_argument("root", type=Path, help="folder of the release")
    parser.add_argument("out", type=Path, help="folder to write, or a corpus to add to")
    args = parser.parse_args(argv)

    def command() -> None:
        for remark in copy_corpus(find(args.root), args.out):
            print(remark)
        print(f"wrote {args.out}; {_next(args.out)}")

    return cli.exit_status(command)

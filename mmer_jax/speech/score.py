"""python -m mmer_jax.speech.score --workdir=W (--audio FILE --text "..." | --from FOLDER)

Or --posteriors=FILE in place of --workdir.

Goodness of pronunciation and accent intensity of every phone, as tables and figures.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console

from mmer_jax import cli, mirror
from mmer_jax.errors import UserError
from mmer_jax.report.figures import drawing
from mmer_jax.speech import features, intensity, phones
from mmer_jax.speech.audio import read_audio
from mmer_jax.speech.corpus import SpeechCorpus, Utterance, read_corpus
from mmer_jax.speech.figures import comparison_figure, utterance_figure
from mmer_jax.speech.intensity import IntensityScale
from mmer_jax.speech.posteriors_file import read_posteriors
from mmer_jax.speech.recogniser import STRIDE, Recogniser, load_recogniser
from mmer_jax.speech.reference_voice import reference_audio
from mmer_jax.speech.score_tables import phone_table, summary, write_faults, write_scores
from mmer_jax.speech.scoring import Scored, posteriors_of, score

ABOUT = """
Score pronunciation with the L1 recogniser of a workdir (python -m mmer_jax.speech.train
--config=configs/l1_recogniser.py). One recording is given by --audio and --text, a folder with
utterances.csv (columns utt_id and text; audio, speaker and phones where they are known) by --from.

Goodness is at most 0; an intensity of 0 is the L1 of the recogniser's corpus, of 1 the strongest
accents there. Into --out go scores.csv (phones), utterances.csv, faults.csv and figures.

--posteriors in place of --workdir scores with another recogniser: an .npz with log_posteriors
[frames, symbols], symbols and frame_shift, or of --from a folder of them, UTT_ID.npz. Intensities
are then on the scale of what is scored, as another recogniser's goodness has another range.

Faulty utterances are named and left out. Exit status: 0; 1 if some utterances were left out; 2 if
nothing could be scored.
"""


class Scorer:
    """How utterances are scored in one call of the command.

    Args:
      recogniser: None where every utterance has posteriors of its own.
      posteriors: file of an utterance; None: the recogniser is asked.
    """

    def __init__(
        self, recogniser: Recogniser | None, posteriors: Callable[[str], Path] | None = None
    ):
        self._recogniser, self._posteriors = recogniser, posteriors

    def recording(self, utterance: Utterance, path: Path) -> tuple[Scored, np.ndarray]:
        """(scores, log-mel spectrum [F, 80]) of a recording."""
        mel = features.log_mel(features.magnitudes(read_audio(path)))
        if self._posteriors is not None:
            given = read_posteriors(self._posteriors(utterance.utt_id))
            seconds = len(given.values) * given.frame_shift
            _check_length(utterance.utt_id, seconds, len(mel) * features.FRAME_SECONDS)
            return self._score(utterance, given.values, given.frame_shift), mel
        return self.spectrum(utterance, mel), mel

    def spectrum(self, utterance: Utterance, mel: np.ndarray) -> Scored:
        """Scores of a log-mel spectrum [F, 80], by the recogniser."""
        assert self._recogniser is not None
        posteriors = posteriors_of(self._recogniser, mel)
        return self._score(utterance, posteriors, STRIDE * features.FRAME_SECONDS)

    def _score(self, utterance: Utterance, posteriors: np.ndarray, frame_seconds: float) -> Scored:
        spoken = phones.pronounce(utterance.text, utterance.phones, utterance.utt_id)
        ids, words = phones.sequence(spoken)
        return score(utterance.utt_id, spoken.words, ids, words, posteriors, frame_seconds)


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    cli.use_compilation_cache(args.compilation_cache)
    return cli.exit_status(lambda: _run(args))


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m mmer_jax.speech.score",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", help="of a trained recogniser; or gs://...")
    parser.add_argument("--seed", type=int, default=0, help="which of its seeds")
    parser.add_argument("--audio", type=Path, help="a wav or flac file")
    parser.add_argument("--text", help="what is said in it")
    parser.add_argument("--phones", default="", help='its ARPAbet, words separated by "|"')
    parser.add_argument("--from", dest="folder", type=Path, help="folder with utterances.csv")
    parser.add_argument("--posteriors", type=Path, help=".npz, or a folder of them, see above")
    parser.add_argument(
        "--compare", action="store_true", help="score espeak-ng's L1 voice on the same sentences"
    )
    parser.add_argument("--out", type=Path, default=Path("scores"), help="default: ./scores")
    parser.add_argument("--figures", type=int, default=6, help="of so many utterances; default 6")
    parser.add_argument("--compilation_cache", default=cli.CACHE, help=argparse.SUPPRESS)
    return parser


def _run(args) -> int:
    single = args.audio is not None
    if single == (args.folder is not None) or single != (args.text is not None):
        raise UserError("give either --audio and --text, or --from")
    if (args.workdir is None) == (args.posteriors is None):
        raise UserError("give either --workdir, of a recogniser, or --posteriors of another one")
    if args.compare and args.posteriors is not None:
        raise UserError("--compare needs a recogniser that can hear the L1 voice: give --workdir")
    workdir = None if args.workdir is None else mirror.folder(args.workdir)
    recogniser = None if workdir is None else load_recogniser(workdir, args.seed)
    scorer = Scorer(recogniser, _posteriors(args))
    if single:
        only = Utterance(args.audio.stem, args.text, audio=args.audio.name, phones=args.phones)
        corpus = SpeechCorpus(args.audio.parent, (only,))
    else:
        corpus = read_corpus(args.folder)
    found, mels, faults = _score_all(corpus, scorer, args.figures)
    console = Console(width=None if sys.stdout.isatty() else 100)
    for utt_id, fault in faults.items():
        print(f"left out: {utt_id}: {fault}", file=sys.stderr)
    if not found:
        raise UserError(f"none of {len(corpus.utterances)} utterances could be scored, see above")
    if workdir is None:
        scale, scaled = _scale_of(found), "their own phones"
    else:
        scale = intensity.load(intensity.place(workdir, args.seed))
        scaled = f"the corpus of {args.workdir}"
    _draw(found, mels, scale, args.out)
    reference = _compare(corpus, found, scorer, args.out) if args.compare else {}
    write_scores(args.out, found, scale, reference)
    write_faults(args.out, faults)
    if single:
        console.print(phone_table(found[0], scale, reference.get(found[0].utt_id)))
    console.print(summary(found, scale, reference, len(faults)), highlight=False)
    console.print(f"intensity is on the scale of {scaled}", highlight=False, markup=False)
    console.print(f"tables and figures: {args.out}", highlight=False, markup=False)
    return 1 if faults else 0


def _scale_of(found: list[Scored]) -> IntensityScale:
    """Of the phones themselves; where all are as good, a nat less is an intensity of 1."""
    spoken = np.concatenate([scored.goodness[scored.words >= 0] for scored in found])
    try:
        return intensity.fit(spoken, "quantile", intensity.EDGE)
    except UserError:
        best = float(spoken.max())
        return IntensityScale(best - 1.0, best, "quantile")


def _posteriors(args) -> Callable[[str], Path] | None:
    if args.posteriors is None:
        return None
    if args.audio is not None:
        return lambda _: args.posteriors
    return lambda utt_id: args.posteriors / f"{utt_id}.npz"


def _score_all(corpus: SpeechCorpus, scorer: Scorer, keep: int):
    """(scores, the first mels, utterance -> why it has none)."""
    found: list[Scored] = []
    mels: list[np.ndarray] = []
    faults: dict[str, str] = {}
    for utterance in corpus.utterances:
        try:
            scored, mel = scorer.recording(utterance, corpus.audio_path(utterance))
        except UserError as error:
            faults[utterance.utt_id] = str(error)
            continue
        found.append(scored)
        if len(found) <= keep:
            mels.append(mel)
    return found, mels, faults


def _draw(found: list[Scored], mels: list[np.ndarray], scale: IntensityScale, out: Path) -> None:
    """A figure of every utterance whose mel was kept."""
    with drawing.look():
        for scored, mel in zip(found, mels, strict=False):
            drawing.save(utterance_figure(scored, mel, scale), out / "figures", scored.utt_id)


def _compare(
    corpus: SpeechCorpus, found: list[Scored], scorer: Scorer, out: Path
) -> dict[str, Scored]:
    """The same sentences by espeak-ng's L1 voice, scored by the recogniser."""
    by_id = {utterance.utt_id: utterance for utterance in corpus.utterances}
    reference = {}
    for scored in found:
        try:
            mel = features.log_mel(features.magnitudes(reference_audio(scored)))
            reference[scored.utt_id] = scorer.spectrum(by_id[scored.utt_id], mel)
        except UserError as error:
            print(f"no L1 voice: {scored.utt_id}: {error}", file=sys.stderr)
    if len(reference) > 1:
        beside = [scored for scored in found if scored.utt_id in reference]
        means = [np.array([s.mean for s in part]) for part in (beside, reference.values())]
        with drawing.look():
            drawing.save(comparison_figure(*means), out, "comparison")
    return reference


def _check_length(utt_id: str, posteriors: float, audio: float) -> None:
    if abs(posteriors - audio) > 0.25:
        raise UserError(
            f"{utt_id}: its posteriors last {posteriors:.2f} s, its audio {audio:.2f} s; check "
            "frame_shift"
        )


if __name__ == "__main__":
    sys.exit(main())

"""python -m mmer_jax.speech.control --workdir=W --compare W2 [W3 ...]

Does the voice follow the number? Held-out sentences are synthesised with every accent at 11
intensities, and the frozen recogniser measures them again in the audio that a listener would hear.
The workdirs after --compare say the same: the paper's baseline (configs/aitts_baseline.py), whose
control is the weight of a speaker-adversarial loss, and ablations. Whether a baseline's accent
grows or fades with its weight is decided on the dev sentences.

A network could learn to please the one recogniser that it was trained with. With --listener another
one measures, which training has not used.

Writes W/control (or W/control_listener): utterances.csv, and control.csv with its figure.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mmer_jax import cli, mirror
from mmer_jax.errors import UserError
from mmer_jax.report.figures.drawing import look, save
from mmer_jax.speech.aitts import Judge
from mmer_jax.speech.aitts_task import open_annotated
from mmer_jax.speech.control_study import (
    Bench,
    Measured,
    correlation,
    draw,
    fades,
    measure,
    of_recordings,
    summary,
)
from mmer_jax.speech.held_out import write_table
from mmer_jax.speech.held_out_sentences import held_out_sentences
from mmer_jax.speech.recogniser import load_recogniser
from mmer_jax.speech.synthesize import add_flags
from mmer_jax.speech.trained_voice import load_judge, load_synthesiser, open_corpus, read_run
from mmer_jax.speech.vocoder import load_vocoder

DEV_SENTENCES = 3  # that decide the direction of a baseline
LEVELS = tuple(round(0.1 * i, 1) for i in range(11))


def name_of(workdir: Path) -> str:
    """What a workdir's system is called."""
    config = read_run(workdir).config
    names = {
        "phone": "Ai-TTS",
        "utterance": "Ai-TTS, utterance level only",
        "adversarial": "baseline: weight of the speaker-adversarial loss",
    }
    control = config.model.control
    if control not in names:
        raise UserError(f"{workdir} was trained without intensities; there is nothing to control")
    consistent = control == "adversarial" or config.stages.aitts.consistency_weight > 0
    return names[control] + ("" if consistent else ", no consistency")


def names_of(places: Sequence[str], workdirs: Sequence[Path]) -> list[str]:
    """What the systems are called; with their places where two are of a kind.

    Raises:
      UserError: a workdir is given twice.
    """
    if len({workdir.resolve() for workdir in workdirs}) < len(workdirs):
        raise UserError(f"--workdir and --compare name a workdir twice: {', '.join(places)}")
    names = [name_of(workdir) for workdir in workdirs]
    if len(set(names)) < len(names):
        return [f"{name} ({place})" for name, place in zip(names, places, strict=True)]
    return names


def make_benches(given, console: Console) -> tuple[Bench, Bench]:
    """What measures on test and on dev sentences, as the flags say."""
    judge = load_judge(given.workdir, given.recogniser)
    data = open_corpus(given.workdir, judge, console)
    if given.listener:
        config = read_run(given.workdir).config
        other = load_recogniser(given.listener)
        judge = Judge(other, open_annotated(config, other, console)[1])
    vocoder = load_vocoder(given.vocoder)
    test = Bench(judge, vocoder, held_out_sentences(data, "test", given.sentences))
    return test, Bench(judge, vocoder, held_out_sentences(data, "dev", DEV_SENTENCES))


def run(given, console: Console) -> None:
    """What the flags ask for."""
    places = [given.workdir, *given.compare]
    workdirs = [mirror.folder(place) for place in places]
    names = names_of(places, workdirs)
    given.workdir = workdirs[0]
    bench, dev = make_benches(given, console)
    lines: list[Measured] = []
    for workdir, name in zip(workdirs, names, strict=True):
        synthesiser = load_synthesiser(workdir, given.seed)
        reverse = not synthesiser.takes_intensities and fades(synthesiser, dev)
        lines += measure(synthesiser, bench, LEVELS, name, reverse=reverse)
        mine = [line for line in lines if line.system == name]
        console.print(f"{name}: Spearman {correlation(mine):.3f}", highlight=False)
    l1 = of_recordings(bench)
    folder = given.workdir / ("control_listener" if given.listener else "control")
    folder.mkdir(exist_ok=True)
    write_table(folder / "utterances.csv", [line._asdict() for line in lines])
    with look():
        save(draw(summary(lines), l1), folder, "control")
    mirror.publish(given.workdir)
    console.print(
        f"L1 recordings: intensity {l1[0]:.3f}, phone error rate {l1[1]:.3f}\n{folder}",
        highlight=False,
        soft_wrap=True,
    )


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = cli.Parser(
        prog="python -m mmer_jax.speech.control",
        description="Measure whether the accent follows the intensity that is asked for.",
    )
    add_flags(parser)
    parser.add_argument(
        "--compare", nargs="*", default=[], metavar="DIR", help="workdirs to set beside"
    )
    parser.add_argument("--recogniser", default="", help="its workdir, if it has been moved")
    parser.add_argument(
        "--listener",
        default="",
        metavar="DIR",
        help="measure with this recogniser, which training has not used, and its own scale",
    )
    parser.add_argument("--sentences", type=int, default=6, help="held-out ones, for each accent")
    given = parser.parse_args(arguments)
    if given.sentences < 1:
        parser.error(f"--sentences is {given.sentences}; expected at least 1")
    return cli.exit_status(lambda: run(given, Console()))


if __name__ == "__main__":
    sys.exit(main())

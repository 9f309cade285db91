"""Folds: which utterances train, choose the epoch, and are scored. Every scheme is speaker-safe."""

import dataclasses

import numpy as np

from mmer_jax.data.corpus import Corpus
from mmer_jax.errors import UserError, shorten

SPLIT_NAMES = {
    "train": ("train", "trn", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "tst"),
}


@dataclasses.dataclass(frozen=True)
class Fold:
    """Rows of the corpus, each sorted.

    Attributes:
      train, validation, test: utterances that some task labels.
      context: utterances of the training part without a label, which dialogues are read with.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    context: np.ndarray


def make_folds(
    corpus: Corpus,
    scheme: str,
    *,
    kfold: int = 5,
    kfold_by: str = "speaker",
    kfold_seed: int = 0,
    allow_speaker_overlap: bool = False,
) -> list[Fold]:
    """The folds of a corpus under one of the schemes of `SCHEMES`.

    Args:
      corpus: its columns `session`, `speaker`, `dialogue` and `split` are used as the scheme needs.
      scheme: key of `SCHEMES`.
      kfold, kfold_by, kfold_seed: number of folds, column of the groups, seed (scheme "kfold").
      allow_speaker_overlap: accept a given split whose speakers are in training and test alike.

    Raises:
      UserError: a needed column is missing, a part of a fold is empty, a class is absent from a
        fold's training rows, or a speaker stands on both sides.
    """
    if scheme not in SCHEMES:
        raise UserError(f"unknown data.splits '{scheme}'; choose one of: {', '.join(SCHEMES)}")
    if scheme == "kfold":
        parts = _kfold(corpus, kfold, kfold_by, kfold_seed)
    else:
        parts = SCHEMES[scheme](corpus)  # type: ignore[operator]
    folds = [
        Fold(
            train=np.flatnonzero(fold[0] & corpus.labelled),
            validation=np.flatnonzero(fold[1] & corpus.labelled),
            test=np.flatnonzero(fold[2] & corpus.labelled),
            context=np.flatnonzero(fold[0] & ~corpus.labelled),
        )
        for fold in parts
    ]
    for number, fold in enumerate(folds):
        _check(corpus, scheme, number, fold, allow_speaker_overlap)
    return folds


def _column(corpus: Corpus, name: str, scheme: str) -> np.ndarray:
    if name not in corpus.columns:
        raise UserError(
            f"data.splits='{scheme}' needs a column '{name}' in utterances.csv; it has: "
            f"{', '.join(corpus.columns)}"
        )
    return corpus.columns[name]


def _session_speaker(corpus: Corpus):
    """MMIN's folds: a session held out, one of its two speakers validates, the other tests."""
    session = _column(corpus, "session", "session_speaker")
    speaker = _column(corpus, "speaker", "session_speaker")
    for held_out in np.unique(session):
        inside = session == held_out
        speakers = np.unique(speaker[inside])
        if len(speakers) != 2:
            raise UserError(
                f"data.splits='session_speaker' needs two speakers in each session; session "
                f"'{held_out}' has {len(speakers)}: {shorten(speakers)}"
            )
        for test in speakers:
            yield ~inside, inside & (speaker != test), inside & (speaker == test)


def _session(corpus: Corpus):
    """A session held out for test, the next one validates."""
    session = _column(corpus, "session", "session")
    yield from _rotate([session == value for value in np.unique(session)], "session")


def _split(corpus: Corpus):
    """The one split that utterances.csv gives; rows with an empty split are not used."""
    column = _column(corpus, "split", "split")
    known = [name for names in SPLIT_NAMES.values() for name in names]
    unknown = sorted(set(column) - set(known) - {""})
    if unknown:
        raise UserError(
            f"column 'split' holds {shorten(unknown)}; expected one of: {', '.join(known)}"
        )
    yield tuple(np.isin(column, names) for names in SPLIT_NAMES.values())


def _kfold(corpus: Corpus, k: int, by: str, seed: int):
    """k groups of about equal size; one tests, the next validates, the others train."""
    if by not in ("dialogue", "speaker"):
        raise UserError(f"data.kfold_by is '{by}'; choose 'dialogue' or 'speaker'")
    groups = _speaker_safe_groups(corpus, _column(corpus, by, "kfold"))
    names = np.unique(groups)
    sizes = np.array([(corpus.labelled & (groups == name)).sum() for name in names])
    if k < 3 or k > len(names):
        raise UserError(
            f"data.kfold={k}: expected 3 to {len(names)}, the number of {by} groups that share no "
            "speaker"
        )
    shuffled = np.random.default_rng(seed).permutation(len(names))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    bins: list[list[int]] = [[] for _ in range(k)]
    for group in order:  # the largest first, each into the bin with the fewest utterances
        min(bins, key=lambda members: sizes[members].sum()).append(group)
    yield from _rotate([np.isin(groups, names[members]) for members in bins], "kfold")


def _rotate(parts: list[np.ndarray], scheme: str):
    if len(parts) < 3:
        raise UserError(f"data.splits='{scheme}' needs at least three groups, found {len(parts)}")
    for k, test in enumerate(parts):
        validation = parts[(k + 1) % len(parts)]
        yield ~(test | validation), validation, test


def _speaker_safe_groups(corpus: Corpus, groups: np.ndarray) -> np.ndarray:
    """Group numbers [N] in which groups that share a speaker are one."""
    _, labels = np.unique(groups, return_inverse=True)
    speaker = corpus.columns.get("speaker", groups)
    # Where the speaker is not known, the group stands for it.
    speaker = np.where(speaker == "", np.char.add("unknown speaker of ", groups), speaker)
    _, speakers = np.unique(speaker, return_inverse=True)
    while True:  # take the smallest label over speakers and groups until nothing moves
        smallest = np.full(speakers.max() + 1, len(labels))
        np.minimum.at(smallest, speakers, labels)
        by_group = np.full(labels.max() + 1, len(labels))
        np.minimum.at(by_group, labels, smallest[speakers])
        merged = by_group[labels]
        if (merged == labels).all():
            return labels
        labels = merged


def _check(corpus: Corpus, scheme: str, number: int, fold: Fold, overlap_ok: bool) -> None:
    where = f"fold {number} (data.splits='{scheme}')"
    several = len(corpus.spec.tasks) > 1
    for i, task in enumerate(corpus.spec.tasks):
        by = f" by '{task.name}'" if several else ""
        for part in ("train", "validation", "test"):
            if not corpus.has_label[getattr(fold, part), i].any():
                raise UserError(f"{where} has no labelled {part} utterance{by}")
        if task.classes:
            labels = corpus.labels[fold.train, i]
            counts = np.bincount(labels[labels >= 0], minlength=len(task.classes))
            absent = [c for c, n in zip(task.classes, counts, strict=True) if not n]
            if absent:
                raise UserError(
                    f"{where} has no training utterance of class {shorten(absent)}{by}; use other "
                    "splits, or leave the class out of the label column"
                )
    speaker = corpus.columns.get("speaker")
    if speaker is not None and not overlap_ok:
        for part in ("test", "validation"):
            shared = set(speaker[fold.train]) & set(speaker[getattr(fold, part)]) - {""}
            if shared:
                raise UserError(
                    f"{where}: {len(shared)} speaker(s) are in training and {part} alike: "
                    f"{shorten(sorted(shared))}. Scores would be of known voices; if the split is "
                    "given that way, pass --config.data.allow_speaker_overlap=True."
                )


SCHEMES = {
    "session_speaker": _session_speaker,
    "session": _session,
    "split": _split,
    "kfold": _kfold,
}

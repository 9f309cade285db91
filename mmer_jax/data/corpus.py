"""The corpus: M named modalities of N utterances, with labels and what folds are cut by.

Everything downstream (splits, normalisation, the training engine, evaluation) sees a `Corpus` and
does not know whether its features come from memory, a feature directory or TFRecords: it asks
`corpus.read(rows)` or, for many batches ahead, `corpus.stream(batches)`.
"""

import dataclasses
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from mmer_jax.errors import UserError, shorten

PART_BYTES = 64 * 2**20
Features = dict[str, np.ndarray]  # modality name -> [n, D], or [n, T, D] zero-padded to max_steps


@dataclasses.dataclass(frozen=True)
class Modality:
    """One modality: `dim` numbers per utterance, or per step of a sequence of ≤ `max_steps`."""

    name: str
    dim: int
    max_steps: int = 0  # 0: a vector per utterance

    @property
    def is_sequence(self) -> bool:
        return self.max_steps > 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an utterance's features, padded."""
        return (self.max_steps, self.dim) if self.is_sequence else (self.dim,)


@dataclasses.dataclass(frozen=True)
class Task:
    """A label column and what is predicted of it."""

    name: str
    classes: tuple[str, ...]  # empty: the label is a real number

    @property
    def n_outputs(self) -> int:
        return max(1, len(self.classes))


@dataclasses.dataclass(frozen=True)
class CorpusSpec:
    """What a model needs to know of a corpus: static, hashable, equal for equal shapes.

    Attributes:
      modalities: in the order of the modality axis.
      tasks: one, or several that all have classes. A model's outputs are theirs side by side.
      n_speakers: different speakers in a dialogue, at most; 0 where no model asks for it.
    """

    modalities: tuple[Modality, ...]
    tasks: tuple[Task, ...]
    n_speakers: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(modality.name for modality in self.modalities)

    @property
    def is_classification(self) -> bool:
        return bool(self.tasks[0].classes)

    @property
    def n_outputs(self) -> int:
        return sum(task.n_outputs for task in self.tasks)

    def split(self, outputs):
        """[..., n_outputs] -> one [..., C] for each task."""
        ends = np.cumsum([task.n_outputs for task in self.tasks])
        return [
            outputs[..., end - task.n_outputs : end]
            for task, end in zip(self.tasks, ends, strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class RawModality:
    """A modality as it was stored.

    `features` is [N, D] with `lengths` None, or packed sequences [sum T, D] with lengths [N]. Where
    records are built of it, it may be a `stored.Stored`, of which slices can be had and no more.
    `source` is the file or array name that error messages give.
    """

    features: np.ndarray
    lengths: np.ndarray | None
    source: str

    def __len__(self) -> int:
        """N, utterances."""
        return len(self.features if self.lengths is None else self.lengths)

    def spec(self, name: str) -> Modality:
        max_steps = 0 if self.lengths is None else int(self.lengths.max())
        return Modality(name, int(self.features.shape[1]), max_steps)

    @property
    def starts(self) -> np.ndarray:
        """[N] first step of each sequence in the packed features."""
        return np.concatenate([[0], np.cumsum(self.lengths)[:-1]]).astype(np.int64)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """rows [n] -> [n, D], or [n, T, D] zero-padded to the longest sequence of the corpus."""
        if self.lengths is None:
            return self.features[rows]
        steps = np.arange(int(self.lengths.max()))
        inside = steps < self.lengths[rows][:, None]
        flat = np.where(inside, self.starts[rows][:, None] + steps, 0)
        return np.where(inside[..., None], self.features[flat], self.features.dtype.type(0))

    def parts(self) -> Iterator[np.ndarray]:
        """The features in order, some megabytes of rows at a time."""
        step = max(1, PART_BYTES // (self.features.shape[1] * self.features.dtype.itemsize))
        for start in range(0, len(self.features), step):
            yield self.features[start : start + step]

    def finite_rows(self) -> np.ndarray:
        """[N] bool: every number of the utterance is finite."""
        finite = np.concatenate([np.isfinite(part).all(axis=1) for part in self.parts()])
        if self.lengths is None:
            return finite
        return np.logical_and.reduceat(finite, self.starts)


class Source(Protocol):
    """Where features come from."""

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[Features]:
        """For each array of rows [n] its features, in order, in arrays that are the caller's."""

    def rows_of_process(self, index: int, count: int) -> np.ndarray:
        """The rows that process `index` of `count` reads; together a partition."""


@dataclasses.dataclass(frozen=True)
class MemorySource:
    """Features that lie in host memory."""

    raw: Mapping[str, RawModality]

    def stream(self, batches):
        for rows in batches:
            yield {name: modality.read(rows) for name, modality in self.raw.items()}

    def rows_of_process(self, index, count):
        n = len(next(iter(self.raw.values())))
        return np.array_split(np.arange(n), count)[index]


@dataclasses.dataclass(frozen=True)
class Corpus:
    """N utterances in a fixed order; a row is an utterance everywhere in this package.

    Attributes:
      name: dataset name, as it stands in results.csv.
      spec: modalities and classes.
      ids: [N] utterance ids.
      columns: every column of utterances.csv, [N] strings each (speaker, session, split, ...).
      labels: [N, tasks] int32 class indices with -1 where there is none, or float32 with NaN.
      present: [N, M] bool, whether the utterance has usable features of the modality.
      lengths: [N] int32 for each sequence modality.
      dtypes: stored dtype of each modality.
      source: where features are read from.
      fingerprint: changes when the features or labels change.
      speakers: [N] int32, numbered within each dialogue, where a method asks for them
        (data/speakers.py).
    """

    name: str
    spec: CorpusSpec
    ids: np.ndarray
    columns: Mapping[str, np.ndarray]
    labels: np.ndarray
    present: np.ndarray
    lengths: Mapping[str, np.ndarray]
    dtypes: Mapping[str, np.dtype]
    source: Source
    fingerprint: str
    speakers: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def row_bytes(self) -> int:
        """Bytes of one utterance's padded features in their stored dtypes."""
        return sum(
            m.dim * max(1, m.max_steps) * self.dtypes[m.name].itemsize for m in self.spec.modalities
        )

    def stream(self, batches: Iterable[np.ndarray]) -> Generator[Features, None, None]:
        """For each array of rows [n] its features in stored dtypes, padded; absent ones are zeros.

        Zeros stand for what is not usable, so that no NaN ever reaches the device.
        """
        batches = list(batches)
        for rows, features in zip(batches, self.source.stream(batches), strict=True):
            for m, name in enumerate(self.spec.names):
                absent = ~self.present[rows, m]
                if absent.any():
                    features[name] = np.where(
                        absent.reshape(-1, *[1] * (features[name].ndim - 1)), 0, features[name]
                    ).astype(features[name].dtype)
            yield features

    def read(self, rows: np.ndarray) -> Features:
        """Features of rows [n]."""
        return next(self.stream([np.asarray(rows)]))

    @property
    def has_label(self) -> np.ndarray:
        """[N, tasks] bool."""
        if self.spec.is_classification:
            return self.labels >= 0
        return np.isfinite(self.labels)

    @property
    def labelled(self) -> np.ndarray:
        """[N] bool: by any task."""
        return np.any(self.has_label, axis=1)


def parse_tasks(
    columns: Mapping[str, np.ndarray],
    label: str | Sequence[str],
    *,
    task: str = "auto",
    classes: Sequence[str] | Sequence[Sequence[str]] = (),
) -> tuple[np.ndarray, tuple[Task, ...]]:
    """([N, tasks] labels, tasks) of one label column or of several.

    Args:
      columns: of utterances.csv.
      label: their names. A single column may be real-valued, several are classes.
      task: "auto", "classification" or "regression".
      classes: in order; of several columns a tuple for each. Empty: sorted.
    """
    names = (label,) if isinstance(label, str) else tuple(label)
    unknown = [name for name in names if name not in columns]
    if unknown:
        raise UserError(
            f"unknown label column '{unknown[0]}'; utterances.csv has: {', '.join(columns)}"
        )
    if not names or len(set(names)) < len(names):
        raise UserError(f"data.labels is {names}; expected different columns of utterances.csv")
    orders: Sequence[Sequence[str]] = [classes]  # type: ignore[list-item]
    if len(names) > 1:
        orders = classes or [()] * len(names)  # type: ignore[assignment]
        if len(orders) != len(names) or any(isinstance(order, str) for order in orders):
            raise UserError(
                f"data.classes is {tuple(classes)}; for {len(names)} label columns expected a "
                "tuple of class names for each, such as (('a','b'),('x','y','z')), or ()"
            )
    labels, tasks = [], []
    for name, order in zip(names, orders, strict=True):
        values, found = parse_labels(columns[name], column=name, task=task, classes=order)
        if not found and len(names) > 1:
            raise UserError(
                f"label column '{name}' is real-valued; of several label columns "
                f"({', '.join(names)}) each must hold classes"
            )
        labels.append(values)
        tasks.append(Task(name, found))
    return np.stack(labels, axis=1), tuple(tasks)


def parse_labels(
    column_values: Sequence[str] | np.ndarray,
    *,
    column: str,
    task: str = "auto",
    classes: Sequence[str] = (),
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as numbers: ([N] class indices, class names) or ([N] floats, ()).

    An empty string or "nan" is a missing label. `task="auto"` reads a column as real-valued when
    every label is a number and at least one is written with a decimal point or an exponent.
    """
    values = np.asarray(column_values, dtype=str)
    given = ~np.isin(np.char.lower(values), ("", "nan"))
    if not given.any():
        raise UserError(f"label column '{column}' is empty for every utterance")
    numbers = _as_numbers(values[given])
    if task == "auto":
        written_real = any(set(value) & set(".eE") for value in values[given])
        task = "regression" if numbers is not None and written_real else "classification"
        if task == "regression" and np.array_equal(numbers, np.round(numbers)):
            raise UserError(
                f"label column '{column}' holds whole numbers written like '{values[given][0]}': "
                "classes or a scale? Pass --config.data.task=classification or regression"
            )
    if task == "regression":
        if numbers is None or not np.isfinite(numbers).all():
            raise UserError(
                f"label column '{column}' is not numeric (for example "
                f"'{_first_not_a_number(values[given])}'); use --config.data.task=classification"
            )
        labels = np.full(len(values), np.nan, np.float32)
        labels[given] = numbers
        return labels, ()
    classes = tuple(map(str, classes))
    if not classes:
        found = sorted({str(value) for value in values[given]})
        classes = sorted(found, key=float) if numbers is not None else found
    unknown = sorted(set(values[given]) - set(classes))
    if unknown:
        raise UserError(
            f"label column '{column}' holds {shorten(unknown)}, not among the classes of the "
            f"config: {', '.join(classes)}"
        )
    if len(classes) < 2:
        raise UserError(
            f"label column '{column}' has the single class '{classes[0]}'; at least two are needed"
        )
    if any(">" in name for name in classes):
        raise UserError(f"class names of column '{column}' may not contain '>': {shorten(classes)}")
    index = {name: i for i, name in enumerate(classes)}
    labels = np.array([index.get(str(value), -1) for value in values], np.int32)
    return labels, tuple(classes)


def _as_numbers(values: np.ndarray) -> np.ndarray | None:
    try:
        return values.astype(np.float64)
    except ValueError:
        return None


def _first_not_a_number(values: np.ndarray) -> str:
    return next(
        v for v in values if _as_numbers(np.array([v])) is None or not np.isfinite(float(v))
    )


def resolve_present(
    finite: np.ndarray, ids: np.ndarray, sources: Mapping[str, str], nonfinite: str
) -> np.ndarray:
    """[N, M] bool `present` from [N, M] bool `finite`, by the policy `nonfinite`.

    "error" refuses non-finite features; "missing" makes that modality missing for the utterance.
    """
    if nonfinite not in ("error", "missing"):
        raise UserError(f"data.nonfinite is '{nonfinite}'; choose 'error' or 'missing'")
    if nonfinite == "error" and not finite.all():
        parts = [
            f"{source}: {int((~finite[:, m]).sum())} utterance(s) with NaN or infinite values: "
            f"{shorten(ids[~finite[:, m]])}"
            for m, source in enumerate(sources.values())
            if not finite[:, m].all()
        ]
        raise UserError(
            "; ".join(parts) + ". Mend the files (an utterance that their utt_id leaves out counts "
            "as NaN), or pass --config.data.nonfinite=missing to treat these modalities as missing "
            "for these utterances."
        )
    nothing = ~finite.any(axis=1)
    if nothing.any():
        raise UserError(
            f"{int(nothing.sum())} utterance(s) have no usable modality at all among "
            f"{', '.join(sources)}: {shorten(ids[nothing])}. Remove them from utterances.csv."
        )
    return finite.copy()


def from_raw(
    raw: Mapping[str, RawModality],
    columns: Mapping[str, np.ndarray],
    **corpus_args,
) -> Corpus:
    """A corpus over modalities that lie in host memory; `corpus_args` as of `assemble`."""
    finite = np.stack([modality.finite_rows() for modality in raw.values()], axis=1)
    return assemble(
        modalities=tuple(modality.spec(key) for key, modality in raw.items()),
        dtypes={key: modality.features.dtype for key, modality in raw.items()},
        lengths={k: m.lengths.astype(np.int32) for k, m in raw.items() if m.lengths is not None},
        finite=finite,
        sources={key: modality.source for key, modality in raw.items()},
        columns=columns,
        source=MemorySource(raw),
        **corpus_args,
    )


def assemble(
    *,
    modalities: tuple[Modality, ...],
    dtypes: Mapping[str, np.dtype],
    lengths: Mapping[str, np.ndarray],
    finite: np.ndarray,
    sources: Mapping[str, str],
    columns: Mapping[str, np.ndarray],
    source: Source,
    name: str,
    label: str | Sequence[str],
    fingerprint: str,
    task: str = "auto",
    classes: Sequence[str] | Sequence[Sequence[str]] = (),
    nonfinite: str = "error",
) -> Corpus:
    """A corpus from its parts, whatever `source` reads from; applies labels and `nonfinite`."""
    labels, tasks = parse_tasks(columns, label, task=task, classes=classes)
    ids = columns["utt_id"]
    present = resolve_present(finite, ids, sources, nonfinite)

    return Corpus(
        name=name,
        spec=CorpusSpec(modalities, tasks),
        ids=ids,
        columns=columns,
        labels=labels,
        present=present,
        lengths=lengths,
        dtypes=dtypes,
        source=source,
        fingerprint=fingerprint,
    )

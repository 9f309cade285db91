"""A run's workdir: whose it is, and that one run at a time, or its workers, write into it."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mmer_jax import config as config_lib
from mmer_jax import distributed
from mmer_jax.data.corpus import Corpus, CorpusSpec, Modality, Task
from mmer_jax.errors import Transient, UserError
from mmer_jax.integrity import Damaged, read_signed, write_signed
from mmer_jax.records import LOCK, PREPARING, one_at_a_time

# Patterns of files; where there is one of them the workdir is somebody's.
BEGUN = (
    "metrics.jsonl",
    "metrics/*.jsonl",
    "results.csv",
    "checkpoints/*/*.json",
    "claims/workers/*",
)


@contextlib.contextmanager
def locked(workdir: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the workdir for all processes of the run, alone or with other workers.

    The lock goes with the first process, however that ends.
    """
    with contextlib.ExitStack() as held:

        def lock() -> None:
            held.enter_context(_lock(workdir, shared))

        distributed.on_first(lock)
        yield


@contextlib.contextmanager
def _lock(workdir: Path, shared: bool) -> Iterator[None]:
    holder = "workers (--worker)" if shared else f"process {os.getpid()}"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"workdir {workdir} cannot be made: {error}") from None
    with file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Transient(
                f"workdir {workdir} is in use by {file.readline().strip() or 'another process'}; "
                "wait for the end of that, stop it, or choose another --workdir"
            ) from None
        file.seek(0)
        if file.read() != holder:
            file.truncate(0)
            file.write(holder)
            file.flush()
        yield


def preparing(workdir: Path) -> contextlib.AbstractContextManager[None]:
    """Of workers that start together one at a time prepares the workdir."""
    return one_at_a_time(workdir / PREPARING)


def claim(workdir: Path, config, corpus: Corpus, unlabelled: Corpus | None = None, **more) -> None:
    """Make `workdir` this configuration's, or refuse if it is another's.

    Args:
      workdir: of the run.
      config: decides what a trial is, but for the keys of `config.INCIDENTAL`.
      corpus, unlabelled: their fingerprints must stay.
      **more: stands in config.json as well, and may change (sweep points).
    """
    facts = (corpus.name, corpus.fingerprint, len(corpus))
    mine = _contents(config, corpus.spec, *facts) | more
    if unlabelled is not None:
        mine["corpus"]["unlabelled"] = unlabelled.fingerprint
    claim_contents(workdir, mine, _differences)


def claim_contents(
    workdir: Path, mine: dict, differences: Callable[[dict, dict], list[str]]
) -> None:
    """Write `mine` as config.json, or refuse if another run's stands there and has begun.

    Args:
      differences: (theirs, mine) -> what may not differ but does.
    """
    path = workdir / "config.json"
    begun = any(any(workdir.glob(name)) for name in BEGUN)
    if path.exists():
        try:
            different = differences(read_signed(path), mine)
        except Damaged as error:
            raise UserError(
                f"{path} {error}; delete it and run this command again, if the workdir is its"
            ) from None
        except (KeyError, AttributeError, TypeError):
            raise UserError(
                f"{path} is not a config.json of ours; choose another --workdir"
            ) from None
        if different and begun:
            raise UserError(
                f"workdir {workdir} belongs to another run ({'; '.join(different)}). Choose "
                "another --workdir, or delete this one."
            )
    write_signed(path, mine)


def record_imported(workdir: Path, config, spec: CorpusSpec) -> None:
    """config.json of parameters that were trained elsewhere.

    Which corpus that was is unknown; the first run in the workdir fills it in.
    """
    contents = _contents(config, spec, "imported", None, None) | {"sweep": [{}]}
    write_signed(workdir / "config.json", contents)


def _contents(config, spec: CorpusSpec, name, fingerprint, utterances) -> dict:
    return {
        "config": config_lib.flat(config),
        "corpus": {
            "name": name,
            "fingerprint": fingerprint,
            "utterances": utterances,
            "modalities": {m.name: [m.dim, m.max_steps] for m in spec.modalities},
            **_outputs(spec),
        },
    }


def _outputs(spec: CorpusSpec) -> dict:
    """What is predicted and who speaks, as config.json has it."""
    if len(spec.tasks) == 1:
        found: dict = {"classes": list(spec.tasks[0].classes)}
    else:
        found = {"tasks": {task.name: list(task.classes) for task in spec.tasks}}
    return found | ({"speakers": spec.n_speakers} if spec.n_speakers else {})


def read_run(workdir: Path) -> tuple[dict[str, object], CorpusSpec]:
    """(the flat configuration, the shapes of the corpus) that config.json holds."""
    path = workdir / "config.json"
    if not path.exists():
        raise UserError(
            f"{path} does not exist; give the --workdir of a finished run of python -m "
            "mmer_jax.main"
        )
    try:
        stored = read_signed(path)
        corpus = stored["corpus"]
        modalities = [Modality(name, *sizes) for name, sizes in corpus["modalities"].items()]
        config = stored["config"]
        if "tasks" in corpus:
            tasks = [Task(name, tuple(classes)) for name, classes in corpus["tasks"].items()]
        else:
            name = (config.get("data.labels") or [config["data.label"]])[0]
            tasks = [Task(name, tuple(corpus["classes"]))]
        return config, CorpusSpec(tuple(modalities), tuple(tasks), corpus.get("speakers", 0))
    except Damaged as error:
        raise UserError(f"{path} {error}; delete it and run its training command again") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise UserError(f"{path} is not a config.json of ours; give another --workdir") from None


def _differences(theirs: dict, mine: dict) -> list[str]:
    """What differs; a setting that `theirs` does not know yet had today's default."""
    theirs = theirs | {"config": config_lib.flat(config_lib.base()) | theirs["config"]}
    if theirs["corpus"]["fingerprint"] is None:  # imported: only shapes are known of its corpus
        theirs, mine = (run | {"corpus": _shapes(run["corpus"])} for run in (theirs, mine))
    return differences_of(theirs["config"], mine["config"], config_lib.INCIDENTAL) + differences_of(
        theirs["corpus"], mine["corpus"]
    )


def differences_of(theirs: dict, mine: dict, ignored: Sequence[str] = ()) -> list[str]:
    """The keys, not among the `ignored`, whose values differ, in words."""
    found = []
    for key in sorted(theirs.keys() | mine.keys()):
        old, new = theirs.get(key), mine.get(key)
        if old != new and key not in ignored:
            found.append(f"{key} there {old!r}, here {new!r}")
    return found


def _shapes(corpus: dict) -> dict:
    dims = {name: dim for name, (dim, _) in corpus["modalities"].items()}
    return {"dims": dims} | {k: corpus[k] for k in ("classes", "tasks") if k in corpus}

"""Damaged data: a reader gives a UserError or all that is there, and nothing in between.

Not another exception, not a hang, not memory for what a header merely claims, not a part that
passes for the whole. `damage.py` says what is done to a folder and what must still hold.
"""

import contextlib
import csv
import faulthandler
import io
import random
import resource
import signal
import warnings
from pathlib import Path

import damage as damages
import numpy as np
import pytest
from helpers import write_features
from releases import make_gcnet, make_mc_eiu, make_mer2024, make_mmin

from mmer_jax.data import feature_dir
from mmer_jax.data.layouts.gcnet import import_gcnet
from mmer_jax.data.layouts.mc_eiu import import_mc_eiu
from mmer_jax.data.layouts.mer2024 import import_mer2024
from mmer_jax.data.layouts.mmin import import_mmin
from mmer_jax.errors import UserError

CPU_SECONDS, WALL_SECONDS, SPARE_BYTES = 20, 300, 2**30
NAMES = ("audio", "text", "visual")
MMIN_DIMS = {"A/comparE": 6, "V/denseface": 5, "L/bert_large": 7}


class Hang(BaseException):
    """Not an OSError like TimeoutError, which readers may catch."""


def _give_up(number, frame):
    raise Hang(f"signal {number}")


@contextlib.contextmanager
def bounded():
    """Little time, little memory beyond what is in use, and no warning for an error."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    for timer, number, seconds in (
        (signal.ITIMER_PROF, signal.SIGPROF, CPU_SECONDS),
        (signal.ITIMER_REAL, signal.SIGALRM, WALL_SECONDS),
    ):
        signal.signal(number, _give_up)
        signal.setitimer(timer, seconds)
    faulthandler.dump_traceback_later(2 * WALL_SECONDS, exit=True)  # for loops in C
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + SPARE_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()


# ---- what is read, and from what ----


def read_features(root, work):
    columns, raw = feature_dir.read_raw(root, ("audio", "text", "face"))
    return columns, {k: (m.features, m.lengths) for k, m in raw.items()}


def read_imported(importer):
    def read(root, work):
        out = work / "out"
        try:
            importer(root, out)
        except UserError:
            assert not out.exists(), "what was refused has been written in part"
            raise
        finally:
            assert {p.name for p in work.iterdir()} <= {"out"}, "something was left behind"
        assert {p.stem for p in out.iterdir()} == {"utterances", *NAMES}
        columns = feature_dir.read_utterances(out / "utterances.csv")
        raw = {name: feature_dir.read_modality(out, name, columns["utt_id"]) for name in NAMES}
        return columns, {k: (m.features, m.lengths) for k, m in raw.items()}

    return read


def make_named(root):
    """A feature directory one of whose files names its rows."""
    write_features(root, n=30)
    with np.load(root / "audio.npz") as archive:
        features = archive["features"]
    order = np.random.default_rng(0).permutation(30)
    named = np.array([f"u{i}" for i in order])
    np.savez(root / "audio.npz", features=features[order], utt_id=named)


def make_small_mmin(root):
    make_mmin(root, utterances=2, dims=MMIN_DIMS)
    (root / "A/comparE_mean_std.h5").unlink()


class Records:
    """TFRecords of a feature directory: the folder that is damaged is theirs."""

    names = ("text", "audio", "face")

    def make(self, root):
        from mmer_jax.data.builders import feature_records

        self.features = write_features(root.parent / "features", n=30)
        feature_records.prepare(self.features, self.names, root)

    def read(self, root, work):
        from mmer_jax.data import pipeline

        corpus = pipeline.read_records(self.features, self.names, root, label="emotion")
        found = corpus.read(np.arange(len(corpus)))
        return corpus.columns, {name: (x, None) for name, x in found.items()}


def build_and_read(root, work):
    """Records built of the folder; of a refused one nothing may be left that looks like records."""
    from mmer_jax.data import pipeline
    from mmer_jax.data.builders import feature_records

    place, names = work / "records", Records.names
    try:
        feature_records.prepare(root, names, place)
    except UserError:
        assert not [*place.glob("*/source.json"), *place.glob(".building-*")]
        raise
    corpus = pipeline.read_records(root, names, place, label="emotion")
    found = corpus.read(np.arange(len(corpus)))
    return corpus.columns, {name: (x, None) for name, x in found.items()}


RECORDS = Records()
TARGETS = {
    "records": (RECORDS.make, RECORDS.read),
    "build": (lambda root: write_features(root, n=30), build_and_read),
    "features": (make_named, read_features),
    "mmin": (make_small_mmin, read_imported(import_mmin)),
    "gcnet": (lambda root: make_gcnet(root, sessions=2), read_imported(import_gcnet)),
    "mer2024": (make_mer2024, read_imported(import_mer2024)),
    "mc_eiu": (make_mc_eiu, read_imported(import_mc_eiu)),
}


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """target -> (folder, what is read from it); made when first asked for."""
    made = {}

    def get(name):
        if name not in made:
            place = tmp_path_factory.mktemp(name)
            make, read = TARGETS[name]
            make(place / "root")
            (place / "work").mkdir()
            made[name] = place / "root", read(place / "root", place / "work")
        return made[name]

    return get


# ---- what must hold ----


def check(found, expected, keeps, root):
    """`found` and `expected` are (columns, modality -> (features, lengths))."""
    columns, raw = found
    n = len(columns["utt_id"])
    assert len(set(columns["utt_id"])) == n
    for features, lengths in raw.values():
        assert len(features) == (n if lengths is None else lengths.sum())
        assert lengths is None or len(lengths) == n
    if keeps == "table":
        if (root / "utterances.csv").exists():
            text = (root / "utterances.csv").read_text(encoding="utf-8-sig")
            header, *rows = csv.reader(io.StringIO(text, newline=""))
            assert [dict(zip(header, row, strict=True)) for row in rows if row] == [
                dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
            ]
        return
    assert columns["utt_id"].tolist() == expected[0]["utt_id"].tolist()
    for name, (features, lengths) in expected[1].items():
        if keeps == "ids":
            continue
        assert raw[name][0].shape == features.shape
        if lengths is not None:
            np.testing.assert_array_equal(raw[name][1], lengths)
        if keeps == "all":
            np.testing.assert_array_equal(raw[name][0], features)
    if keeps == "all":
        for name, column in expected[0].items():
            assert columns[name].tolist() == column.tolist()


def one_case(target, seed, intact, place):
    """Damage a copy once or twice, and read it."""
    rng = random.Random(f"{target} {seed}")
    source, expected = intact(target)
    root, work = place / "root", place / "work"
    damages.copy_tree(source, root)
    work.mkdir()
    damages.Hostile.mark = str(place / "ran")
    files = sorted(p for p in root.rglob("*") if p.is_file())
    few = [p for p in files if p.suffix != ".npy" or p.parent.name.isdecimal()]
    done, keeps = [], "all"
    for _ in range(rng.choice((1, 1, 1, 2))):
        chosen = few if few and rng.random() < 0.5 else files
        chosen = [p for p in chosen if p.is_file() and not p.is_symlink()]
        try:
            with warnings.catch_warnings(action="ignore"):
                said, kept = damages.damage(rng, root, chosen)
        except Exception:  # a second damage to what is already broken: the first will do
            if not done:
                raise
            break
        done.append(said)
        keeps = max(keeps, kept, key=damages.KEEPS.index)
    (place / "ran").unlink(missing_ok=True)  # by who damaged what was hostile already
    try:
        with bounded():
            found = TARGETS[target][1](root, work)
        check(found, expected, keeps, root)
        outcome = "read"
    except UserError as error:
        assert 10 < len(str(error)) < 5000
        outcome = "refused"
    except BaseException as error:
        error.add_note(f"{target}, seed {seed}: {'; '.join(done)}; must keep {keeps}")
        raise
    assert not (place / "ran").exists(), f"{target}, seed {seed}: a pickle was run"
    return outcome


SHARE = {"records": 0.2}  # of the cases that other targets have; each may build records anew


def run(target, seeds, intact, tmp_path):
    outcomes = []
    for seed in seeds[: int(SHARE.get(target, 1) * len(seeds))]:
        place = tmp_path / str(seed)
        place.mkdir()
        outcomes.append(one_case(target, seed, intact, place))
    assert {"read", "refused"} == set(outcomes)  # else the damage is not of both kinds


@pytest.mark.parametrize("target", TARGETS)
def test_damaged_folders(target, intact, tmp_path):
    run(target, range(20), intact, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_many_damaged_folders(target, intact, tmp_path):
    run(target, range(20, 420), intact, tmp_path)

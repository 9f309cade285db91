"""What several test files need: shrunk shipped configs and small feature directories."""

import contextlib
import dataclasses
import io
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from mmer_jax.data import feature_dir
from mmer_jax.data.corpus import RawModality
from mmer_jax.data.feed import Feed
from mmer_jax.data.missing import missing_patterns
from mmer_jax.data.units import Grouping, Units, make_grouping
from mmer_jax.mesh import make_mesh
from mmer_jax.programs import TrialData, make_batch
from mmer_jax.train import run
from mmer_jax.trials import fill_up, stack_tables

sys.path.append(__file__.rsplit("/", 2)[0])  # so that `configs` imports from any folder


def shrunk(config, **overrides):
    """A shipped config made small: seconds on one core. Overrides use __ for a dot."""
    config.unlock()
    config.synthetic.n_utterances = 260  # folds then differ in their number of batches
    config.model.embedding = 8
    config.model.classifier = (8,)
    if "cascade" in config.model:
        config.model.cascade = (8, 4)
        config.model.blocks = 2
    if "vae" in config.model:
        config.model.vae.update(latent=4, layers=2, heads=2, feedforward=8, hidden=8)
    if "transformer" in config.model:
        config.model.transformer.update(layers=1, heads=2, feedforward=8)
    if "curriculum" in config.model:
        config.model.update(heads=2, depth=2, decoder=8)
    if "fusion_heads" in config.model:
        config.model.update(fusion_heads=2, interaction_heads=2, feedforward=8)
    for stage in config.stages.values():
        stage.update(batch_size=32, constant_epochs=1, decay_epochs=1)
    config.eval.batch_size = 32
    config.mesh.devices = 1
    config.checkpoint.every_seconds = 0.0
    config.lock()
    for key, value in overrides.items():
        section = config
        *path, name = key.split("__")
        for part in path:
            section = section[part]
        with section.unlocked():
            section[name] = value
    return config


def assert_same_results(actual, expected):
    """The same rows; what is counted equal to the last digit, variances as float32 sums them."""
    for a, b in zip(actual, expected, strict=True):
        if a.metric == "imagination_R2":
            np.testing.assert_allclose(float(a.value), float(b.value), rtol=1e-5, err_msg=str(a))
            a = dataclasses.replace(a, value=b.value)
        assert a == b


def train(config, workdir, console=None, points=None, report=False, worker=None):
    """run() without a terminal; returns (results, what was printed).

    Its figures take longer than the training of these small runs: drawn where `report` asks.
    """
    text = io.StringIO()
    console = console or Console(file=text, width=200)
    with contextlib.ExitStack() as stack:
        if not report:
            stack.enter_context(mock.patch("mmer_jax.report.write_report", lambda *a, **k: "-"))
        results = run(config, workdir, console, points, worker=worker)
    return results, text.getvalue()


def write_features(root, n=40, *, sequence=True, vector=True, seed=0, extra=None):
    """A feature directory with modalities `text` (sequence) and `audio`, `face` (vectors)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=n)
    columns = {
        "utt_id": np.array([f"u{i}" for i in range(n)]),
        "emotion": np.array(["sad", "glad"])[labels],
        "score": np.array([f"{x:.3f}" for x in labels * 2 - 1 + 0.1 * rng.normal(size=n)]),
        "speaker": np.array([f"s{i % 8}" for i in range(n)]),
        "session": np.array([str(i % 8 // 2) for i in range(n)]),
        "dialogue": np.array([f"d{i % 8 // 2}" for i in range(n)]),
        "split": np.array([("train", "train", "dev", "test")[i % 8 // 2] for i in range(n)]),
    }
    raw = {}
    if sequence:
        lengths = rng.integers(1, 8, size=n)
        x = rng.normal(size=(lengths.sum(), 4)) + np.repeat(labels, lengths)[:, None]
        raw["text"] = RawModality(x.astype(np.float16), lengths, "text")
    if vector:
        for name, dim in (("audio", 3), ("face", 5)):
            x = rng.normal(size=(n, dim)) + labels[:, None]
            raw[name] = RawModality(x.astype(np.float32), None, name)
    feature_dir.write_directory(root, columns | (extra or {}), raw)
    return root


def trial_data(corpus, count):
    """Of trials that neither normalise nor have hyper-parameters."""
    dims = {m.name: m.dim for m in corpus.spec.modalities}
    return TrialData(
        key=jax.random.split(jax.random.key(0), count),
        mean={name: jnp.zeros((count, dim)) for name, dim in dims.items()},
        std={name: jnp.ones((count, dim)) for name, dim in dims.items()},
        label_mean=jnp.zeros(count),
        label_std=jnp.ones(count),
        clip=jnp.full(count, jnp.inf),
        rate=jnp.zeros((count, 2)),
        hyper={},
        frozen={},
        constants={},
    )


def tables(rows):
    """Utterances [S, T, B], all of which count, as units [S, T, B, 1]; -1: none."""
    rows = np.asarray(rows, np.int32)[..., None]
    return Units(rows, rows >= 0)


def all_rows(corpus, count, unit="utterance", size=32):
    """Tables in which `count` trials count every row of a corpus once."""
    rows = np.arange(len(corpus))
    units = make_grouping(corpus, unit).units(rows, rows)
    return stack_tables([fill_up(units, size)] * count)


def one_batch(corpus, data, corruption=None, grouping: Grouping | None = None):
    """29 utterances and a row of padding (the first) under all missing patterns.

    Or 14 units of a grouping, after one of padding.
    """
    mesh = make_mesh(1, 32, n_devices=1)
    feed = Feed(corpus, mesh, placement="device", memory_budget=0)
    rows = np.arange(-1, 29, dtype=np.int32)[:, None]
    if grouping is not None:
        rows = np.concatenate([np.full_like(grouping.table[:1], -1), grouping.table[:14]])
    return make_batch(
        corpus.spec,
        next(feed.pieces(tables(np.zeros((1, 1, 1))))).resident,
        jax.tree.map(lambda x: x[0], data),
        *(jnp.asarray(rows), jnp.asarray(rows), jnp.asarray(rows >= 0)),
        missing_patterns(len(corpus.spec.modalities)),
        corruption.of_rows(jnp.asarray(rows.reshape(-1))) if corruption else None,
    )


def flip(path, rng):
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    path.write_bytes(content)


def truncate(path, rng):
    """Keep a part of a file, less than all."""
    content = path.read_bytes()
    path.write_bytes(content[: rng.integers(len(content))])

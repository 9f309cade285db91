"""What a recogniser adds to features: spans, goodness, intensity, prosody."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from speech_corpora import tiny_config

from mmer_jax.data import feature_dir
from mmer_jax.speech import intensity
from mmer_jax.speech.annotate import COLUMNS, annotate
from mmer_jax.speech.corpus import SpeechCorpus, read_corpus
from mmer_jax.speech.dataset import open_features
from mmer_jax.speech.evaluation import auc, recognition, utterance_means
from mmer_jax.speech.extract import extract_features
from mmer_jax.speech.recogniser import Network, Recogniser
from mmer_jax.speech.scoring import posteriors_of, score


@pytest.fixture(scope="module")
def recogniser():
    network = Network(channels=6, hidden=5, layers=1, cepstra=12)
    params = network.init(jax.random.key(1), np.zeros((1, 8, 80)), np.array([8]))["params"]
    return Recogniser(network, params, "untrained")


@pytest.fixture(scope="module", params=["given", "own"])
def annotated(request, spoken, recogniser, one_width, tmp_path_factory):
    """(features, annotated features), with TextGrids or by the recogniser's alignments."""
    cache = tmp_path_factory.mktemp("annotate")
    corpus = read_corpus(spoken)
    if request.param == "own":
        bare = tuple(dataclasses.replace(u, alignment="") for u in corpus.utterances)
        corpus = SpeechCorpus(corpus.root, bare)
    folder = extract_features(corpus, cache)
    return folder, annotate(folder, recogniser, cache, tiny_config(spoken, cache))


def columns_of(folder):
    table, raw = feature_dir.read_raw(folder, ("phones", "mel"))
    values = dict(zip(COLUMNS, raw["phones"].features.T, strict=False))
    return table, values, raw["phones"].lengths, raw["mel"].lengths


def test_every_frame_belongs_to_a_phone(annotated):
    _, values, lengths, frames = columns_of(annotated[1])
    assert np.add.reduceat(values["duration"], np.cumsum(lengths) - lengths).tolist() == (
        frames.tolist()
    )


def test_intensity_is_the_scale_of_goodness_and_0_in_silence(annotated):
    _, values, _, _ = columns_of(annotated[1])
    scale = intensity.load(annotated[1] / "scaling.json")
    spoken = values["word"] >= 0
    np.testing.assert_allclose(
        values["intensity"][spoken], scale.intensity(values["goodness"][spoken]), atol=1e-5
    )
    assert not values["intensity"][~spoken].any()
    assert values["intensity"].min() == 0 and values["intensity"].max() == 1


def test_goodness_is_what_the_scorer_measures_with_or_without_an_alignment(annotated, recogniser):
    """What training is told of recordings and what is measured of speech must be one thing."""
    folder, made = annotated
    _, values, lengths, frames = columns_of(made)
    mels = feature_dir.read_raw(folder, ("mel", "phones"))[1]["mel"].features
    for row in (0, len(lengths) - 1):
        mine = slice(lengths[:row].sum(), lengths[: row + 1].sum())
        mel = mels[frames[:row].sum() : frames[: row + 1].sum()]
        phones, words = (values[name][mine].astype(np.int32) for name in ("phone", "word"))
        scored = score("u", (), phones, words, posteriors_of(recogniser, mel), 0.032)
        np.testing.assert_allclose(values["goodness"][mine], scored.goodness, atol=1e-4)


def test_prosody_is_standardised_over_the_training_phones(annotated):
    table, values, lengths, _ = columns_of(annotated[1])
    train = np.repeat(table["split"] == "train", lengths) & (values["word"] >= 0)
    for name in ("pitch", "energy"):
        assert abs(values[name][train].mean()) < 1e-4
        assert abs(values[name][train].std() - 1) < 1e-3
    statistics = json.loads((annotated[1] / "prosody.json").read_text())
    assert 60 < np.exp(statistics["pitch"]["mean"]) < 400


def test_batches_carry_what_was_added(annotated):
    data = open_features(annotated[1], source="directory", records_dir=annotated[1].parent)
    (batch,) = data.stream([np.arange(4)])
    _, values, lengths, _ = columns_of(annotated[1])
    first = slice(lengths[0])
    np.testing.assert_array_equal(batch.intensity[0, first], values["intensity"][first])
    np.testing.assert_array_equal(batch.pitch[0, first], values["pitch"][first])
    assert batch.durations.sum(axis=1).tolist() == batch.n_frames.tolist()


def test_it_is_made_once(annotated, recogniser, spoken, monkeypatch):
    from mmer_jax.speech import annotate as module

    monkeypatch.setattr(module, "_judge", None)
    folder, made = annotated
    assert annotate(folder, recogniser, made.parent, tiny_config(spoken, made.parent)) == made


def test_boundaries_are_measured_where_they_are_known(annotated, recogniser):
    data = open_features(annotated[0], source="directory", records_dir=annotated[0].parent)
    rows = data.rows("test", "")
    (batch,) = data.stream([rows])
    found = recognition(recogniser, data, rows)
    assert found.per_greedy > 0.5
    assert np.isnan(found.boundary_ms) == (not batch.durations.any())


def test_auc_is_the_share_of_right_pairs():
    lower, higher = np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0])
    pairs = [(h > low) + 0.5 * (h == low) for low in lower for h in higher]
    assert auc(lower, higher) == pytest.approx(np.mean(pairs))


def test_utterance_means_leave_silence_out():
    values, words = np.array([9.0, 1, 3, 9, 5]), np.array([-1, 0, 0, -1, 0])
    assert utterance_means(values, words, np.array([3, 2])).tolist() == [2.0, 5.0]

"""Vocoders: Griffin-Lim keeps a spectrum, and an ONNX file is run or refused with reasons."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmer_jax.errors import UserError
from mmer_jax.speech.cepstral import distortion
from mmer_jax.speech.features import HOP, N_MELS, RATE, log_mel, magnitudes
from mmer_jax.speech.vocoder import bounded, load_vocoder


@pytest.fixture
def tone():
    """Half a second of a gliding voice."""
    time = np.arange(RATE // 2) / RATE
    phase = 2 * np.pi * (120 * time + 40 * time**2)
    return (0.05 * sum(np.sin(k * phase) / k for k in range(1, 30))).astype(np.float32)


def write_network(path, kernel, bands=N_MELS, stride=HOP):
    """One transposed convolution as the smallest vocoder there is."""
    node = helper.make_node("ConvTranspose", ["mel", "kernel"], ["audio"], strides=[stride])
    graph = helper.make_graph(
        [node],
        "vocoder",
        [helper.make_tensor_value_info("mel", TensorProto.FLOAT, [1, bands, "frames"])],
        [helper.make_tensor_value_info("audio", TensorProto.FLOAT, [1, 1, "samples"])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


def test_griffin_lim_keeps_the_spectrum(tone):
    mel = log_mel(magnitudes(tone))
    vocoder = load_vocoder(None)
    audio = vocoder(mel)
    assert len(audio) == HOP * (len(mel) - 1)
    np.testing.assert_array_equal(audio, vocoder(mel))
    assert distortion(log_mel(magnitudes(audio)), mel) < 5
    assert distortion(mel[:, ::-1], mel) > 20


def test_bounded_makes_loud_audio_softer_and_leaves_the_rest():
    quiet = np.array([0.1, -0.5], np.float32)
    np.testing.assert_array_equal(bounded(quiet), quiet)
    np.testing.assert_allclose(bounded(4 * quiet), quiet * 0.95 / 0.5, rtol=1e-6)
    assert bounded(np.zeros(0)).shape == (0,)


def test_an_onnx_network_is_run(tmp_path):
    kernel = np.random.default_rng(0).normal(0, 1e-4, (N_MELS, 1, HOP)).astype(np.float32)
    write_network(tmp_path / "vocoder.onnx", kernel)
    mel = np.random.default_rng(1).normal(-4, 1, (7, N_MELS)).astype(np.float32)
    audio = load_vocoder(tmp_path / "vocoder.onnx")(mel)
    np.testing.assert_allclose(audio, (mel @ kernel[:, 0]).reshape(-1), atol=1e-5)


def test_what_is_no_vocoder_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_vocoder(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(UserError, match="no ONNX file that can be run"):
        load_vocoder(tmp_path / "text.onnx")
    write_network(tmp_path / "narrow.onnx", np.zeros((13, 1, HOP), np.float32), bands=13)
    with pytest.raises(UserError, match=r"expected one input \[1, 80, frames\]"):
        load_vocoder(tmp_path / "narrow.onnx")
    write_network(tmp_path / "slow.onnx", np.zeros((N_MELS, 1, 300), np.float32), stride=300)
    with pytest.raises(UserError, match="2100 samples of 7 frames; expected 256"):
        load_vocoder(tmp_path / "slow.onnx")(np.zeros((7, N_MELS), np.float32))

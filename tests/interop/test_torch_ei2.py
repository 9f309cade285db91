"""EI² against PyTorch, in the released sizes and in others."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import original_ei2  # noqa: E402  (imports torch)

from mmer_jax.parity import __main__ as parity  # noqa: E402

SIZES = {
    # One turn before, three voices, a single recurrent layer.
    "small": original_ei2.Sizes(
        dims=(5, 3, 4),
        steps=(6, 5, 7),
        history_steps=(4, 5, 6),
        hidden=12,
        feedforward=20,
        fusion_heads=3,
        attention_heads=2,
        context_layers=1,
        history=1,
        speakers=3,
        cls_layers=(10,),
        classes=(2, 5),
        utterances=4,
    ),
    # Four turns before, which do not divide their steps; utterances longer than them.
    "long": original_ei2.Sizes(
        dims=(4, 9, 6),
        steps=(12, 4, 5),
        history_steps=(11, 18, 13),
        hidden=8,
        feedforward=32,
        fusion_heads=2,
        attention_heads=4,
        context_layers=3,
        history=4,
        speakers=5,
        cls_layers=(16, 12, 9),
        classes=(6, 3),
        utterances=7,
        training_steps=5,
    ),
}


def test_the_reference_in_pytorch_is_the_released_one(reference_dir):
    with np.load(reference_dir / "ei2.npz") as archive:
        stored = dict(archive)
    meta = json.loads(str(stored["meta"]))
    shapes = {name: stored[f"input/{name}"].shape for name in original_ei2.ORDER}
    sizes = original_ei2.Sizes(
        dims=tuple(shape[2] for shape in shapes.values()),
        steps=(),
        history_steps=(),
        hidden=meta["hidden"],
        feedforward=meta["transformer_feedforward"],
        fusion_heads=meta["transformer_heads"],
        attention_heads=meta["attention_heads"],
        context_layers=meta["context_layers"],
        history=meta["history"],
        speakers=2,
        cls_layers=tuple(meta["cls_layers"]),
        classes=(meta["emotions"], meta["intents"]),
        utterances=0,
    )
    networks = original_ei2.networks(sizes)
    for name, network in networks.items():
        state = {key: torch.tensor(stored[f"param/{name}/{key}"]) for key in network.state_dict()}
        network.load_state_dict(state)
    given = {
        name.removeprefix("input/"): x.astype(np.float32) if x.dtype.kind == "f" else x
        for name, x in stored.items()
        if name.startswith("input/")
    }
    for name, x in original_ei2.values(networks, given, meta["steps"]).items():
        np.testing.assert_allclose(x, stored[name], rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small", "long"])
def test_other_sizes_hold(tmp_path, name, capsys):
    path = tmp_path / f"{name}.npz"
    original_ei2.write(path, SIZES[name], seed=len(name))
    assert parity.main([str(path)]) == 0, capsys.readouterr().out

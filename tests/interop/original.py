"""Small PyTorch networks with the originals' tensor names, and their checkpoint folders."""

import json

import numpy as np
import torch
from torch import nn

DIMS = {"A": 7, "L": 6, "V": 5}
STEPS = {"A": 9, "L": 8, "V": 6}
SIZE, CLASSES, LAYERS, BLOCKS, HEAD = 8, 4, (12, 6, 4), 2, (10, 9)


class Lstm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.rnn = nn.LSTM(dim, SIZE, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0].amax(dim=1)


class TextCnn(nn.Module):
    def __init__(self, dim):
        super().__init__()
        for i, width in enumerate((3, 4, 5), start=1):
            setattr(self, f"conv{i}", nn.Conv2d(1, 128, (width, dim)))
        self.embd = nn.Sequential(nn.Linear(3 * 128, SIZE), nn.ReLU())

    def forward(self, x):
        outs = [conv(x[:, None])[..., 0].relu() for conv in (self.conv1, self.conv2, self.conv3)]
        return self.embd(torch.cat([out.amax(dim=-1) for out in outs], dim=-1))


def layers(sizes, dropout):
    parts = []
    for a, b in zip(sizes, sizes[1:], strict=False):
        parts += [nn.Linear(a, b), nn.ReLU()] + ([nn.Dropout(dropout)] if dropout else [])
    return nn.Sequential(*parts)


class Head(nn.Module):
    def __init__(self, dim, dropout=0.0):
        super().__init__()
        self.module = layers((dim, *HEAD), dropout)
        self.fc_out = nn.Linear(HEAD[-1], CLASSES)

    def forward(self, x):
        return self.fc_out(self.module(x))


class Cascade(nn.Module):
    """MMIN's: the block's output is added to its input."""

    def __init__(self):
        super().__init__()
        dim = 3 * SIZE
        for n in range(BLOCKS):
            setattr(self, f"encoder_{n}", self.chain((dim, *LAYERS), nn.LeakyReLU(0.01)))
            setattr(self, f"decoder_{n}", self.chain((*LAYERS[::-1], dim), nn.ReLU()))
        self.transition = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))

    def chain(self, sizes, activation):
        parts = []
        for a, b in zip(sizes, sizes[1:], strict=False):
            parts += [nn.Linear(a, b), activation]
        return nn.Sequential(*parts[:-1])

    def forward(self, x):
        latents = []
        for n in range(BLOCKS):
            latents.append(getattr(self, f"encoder_{n}")(x))
            x = x + getattr(self, f"decoder_{n}")(latents[-1])
        return torch.cat(latents, dim=-1)


def encoders():
    return {"A": Lstm(DIMS["A"]), "L": TextCnn(DIMS["L"]), "V": Lstm(DIMS["V"])}


def utt_fusion(seed=0, dropout=0.3):
    torch.manual_seed(seed)
    return encoders() | {"C": Head(3 * SIZE, dropout)}


def mmin(seed=0, dropout=0.5):
    torch.manual_seed(seed)
    head = Head(BLOCKS * LAYERS[-1], dropout)
    return encoders() | {"C": head, "AE": Cascade(), "AE_cycle": Cascade()}


def logits(networks, features, available):
    """[B, C]; `features` {letter: [B, T, D]}, `available` {letter: bool}."""
    for network in networks.values():
        network.eval()
    with torch.no_grad():
        parts = [
            networks[k](torch.tensor(features[k] * available[k], dtype=torch.float32))
            for k in ("A", "L", "V")
        ]
        x = torch.cat(parts, dim=-1)
        return networks["C"](networks["AE"](x) if "AE" in networks else x).numpy()


def save(networks, folder, epoch="7", parallel=False, options=None):
    """A fold's folder of .pth files."""
    folder.mkdir(parents=True, exist_ok=True)
    prefix = "module." if parallel else ""
    for name, network in networks.items():
        state = {prefix + key: x for key, x in network.state_dict().items()}
        torch.save(state, folder / f"{epoch}_net_{name}.pth")
    if options is not None:
        (folder.parent / "train_opt.conf").write_text(json.dumps(options))


def arrays(networks):
    """{'A/rnn.weight_ih_l0': array} of all networks."""
    return {
        f"{name}/{key}": np.asarray(x)
        for name, network in networks.items()
        for key, x in network.state_dict().items()
    }


def features(n=5, seed=1):
    rng = np.random.default_rng(seed)
    return {k: rng.normal(size=(n, STEPS[k], DIMS[k])).astype(np.float32) for k in DIMS}

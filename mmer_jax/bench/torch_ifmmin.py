"""The comparison: IF-MMIN's second stage in PyTorch, as one would write it there.

The same networks, sizes, losses and optimiser as methods/ifmmin.py. As in the released training,
each utterance of a batch gets one pattern, its missing inputs are zeros, and the frozen teacher is
run in every step. Library kernels (nn.LSTM, nn.Conv1d) do the heavy work. Needs torch.
"""

import itertools
import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

H = 128  # embedding size
CASCADE = (256, 128, 64)
BLOCKS = 5
CLASSES = 4


class LSTMEncoder(nn.Module):
    """One-layer LSTM, max over time."""

    def __init__(self, dim: int):
        super().__init__()
        self.lstm = nn.LSTM(dim, H, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0].amax(dim=1)


class TextCNN(nn.Module):
    """Convolutions of widths 3, 4, 5, max over time, dropout, Linear.

    `conv2d` is the released form, a picture of one channel and kernels as wide as it. `conv1d` has
    the features as channels: the same numbers, and on a CPU about twice as fast.
    """

    def __init__(self, dim: int, form: str):
        super().__init__()
        self.form = form
        self.convolutions = nn.ModuleList(
            nn.Conv1d(dim, H, width) if form == "conv1d" else nn.Conv2d(1, H, (width, dim))
            for width in (3, 4, 5)
        )
        self.out = nn.Linear(3 * H, H)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2) if self.form == "conv1d" else x.unsqueeze(1)
        pooled = [F.relu(c(x)).flatten(2).amax(dim=2) for c in self.convolutions]
        return F.relu(self.out(F.dropout(torch.cat(pooled, dim=1), 0.5, self.training)))


class Encoders(nn.Module):
    """Embeddings [B, M, H] of the modalities, and their invariant features."""

    def __init__(self, dims: Mapping[str, int], text: str):
        super().__init__()
        self.encoders = nn.ModuleDict(
            {n: TextCNN(dim, text) if n == "text" else LSTMEncoder(dim) for n, dim in dims.items()}
        )
        self.shared = nn.Sequential(
            nn.Linear(H, H), nn.LeakyReLU(0.01), nn.Linear(H, H), nn.LeakyReLU(0.01)
        )

    def embed(self, features: Mapping[str, Tensor], available: Tensor) -> Tensor:
        """`available` is [B, M]; what is missing enters as zeros."""
        return torch.stack(
            [
                encoder(features[name] * available[:, i, None, None])
                for i, (name, encoder) in enumerate(self.encoders.items())
            ],
            dim=1,
        )


class Autoencoder(nn.Module):
    """One block of the cascade; returns (output, latent)."""

    def __init__(self, dim: int):
        super().__init__()
        a, b, c = CASCADE
        self.encode = nn.Sequential(
            nn.Linear(dim, a), nn.LeakyReLU(0.01), nn.Linear(a, b), nn.LeakyReLU(0.01),
            nn.Linear(b, c),
        )  # fmt: skip
        self.decode = nn.Sequential(
            nn.Linear(c, b), nn.ReLU(), nn.Linear(b, a), nn.ReLU(), nn.Linear(a, dim)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        latent = self.encode(x)
        return self.decode(latent), latent


class Student(nn.Module):
    """Encoders, invariant encoder, cascade and classifier."""

    def __init__(self, dims: Mapping[str, int], text: str):
        super().__init__()
        width = len(dims) * H
        self.encoders = Encoders(dims, text)
        self.blocks = nn.ModuleList(Autoencoder(width) for _ in range(BLOCKS))
        self.transition = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.classifier = nn.Sequential(
            nn.Linear(BLOCKS * CASCADE[-1], H), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(H, H), nn.ReLU(), nn.Dropout(0.5), nn.Linear(H, CLASSES),
        )  # fmt: skip

    def forward(self, features, available) -> tuple[Tensor, Tensor, Tensor]:
        """(logits, imagined [B, M·H], invariant [B, M, H])."""
        embeddings = self.encoders.embed(features, available)
        invariant = self.encoders.shared(embeddings)
        x, latents = embeddings.flatten(1), []
        for block in self.blocks:
            x, latent = block(x + invariant.flatten(1))
            latents.append(latent)
        return self.classifier(torch.cat(latents, dim=1)), self.transition(x), invariant


class TorchStep:
    """A training step over random data of the given sizes.

    Args:
      sizes: modality -> (dimension, steps).
      batch: utterances in a step.
      text: form of the TextCNN's convolutions.
    """

    def __init__(self, sizes: Mapping[str, Sequence[int]], batch: int, *, text: str):
        torch.manual_seed(0)
        dims = {name: dim for name, (dim, _) in sizes.items()}
        self.features = {name: torch.randn(batch, t, dim) for name, (dim, t) in sizes.items()}
        self.labels = torch.randint(CLASSES, (batch,))
        self.patterns = torch.tensor(
            [p for p in itertools.product((0.0, 1.0), repeat=len(sizes)) if 0 < sum(p) < len(sizes)]
        )
        self.teacher = Encoders(dims, text).eval().requires_grad_(False)
        self.student = Student(dims, text)
        self.optimizer = torch.optim.Adam(self.student.parameters(), lr=2e-4, betas=(0.5, 0.999))

    def train(self) -> None:
        """One update on a random pattern for each utterance."""
        self.student.train()
        available = self.patterns[torch.randint(len(self.patterns), self.labels.shape)]
        with torch.no_grad():
            target = self.teacher.embed(self.features, 1 - available).flatten(1)
            full = self.teacher.embed(self.features, torch.ones_like(available))
            teacher_invariant = self.teacher.shared(full)
        logits, imagined, invariant = self.student(self.features, available)
        loss = (
            F.cross_entropy(logits, self.labels)
            + F.mse_loss(imagined, target)
            + 100 * F.mse_loss(invariant, teacher_invariant)
        )
        self.optimizer.zero_grad()
        loss.backward()
        networks = [*self.student.encoders.encoders.values(), self.student.encoders.shared]
        cascade = [*self.student.blocks.parameters(), *self.student.transition.parameters()]
        for network in (*networks, self.student.classifier):
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        nn.utils.clip_grad_norm_(cascade, 1.0)
        self.optimizer.step()

    def step_seconds(self) -> float:
        """Seconds of one update."""
        start = time.perf_counter()
        self.train()
        return time.perf_counter() - start

"""EI²'s networks in PyTorch with the release's tensor names, and reference files of any size.

Written after METHODS §7; test_parity.py holds it against the released networks' own values.
"""

import dataclasses
import json

import numpy as np
import torch
from original import TextCnn as WideTextCnn
from original import layers
from torch import nn

ORDER = {"visual": "V", "audio": "A", "text": "L"}
ADAM = {"lr": 2e-4, "b1": 0.5, "weight_decay_l2": 0.0, "clip_norm_per_network": 1.0}


@dataclasses.dataclass(frozen=True)
class Sizes:
    dims: tuple[int, int, int]  # visual, audio, text
    steps: tuple[int, int, int]
    history_steps: tuple[int, int, int]  # of all turns before, joined
    hidden: int
    feedforward: int
    fusion_heads: int
    attention_heads: int
    context_layers: int
    history: int
    speakers: int
    cls_layers: tuple[int, ...]
    classes: tuple[int, int]
    utterances: int
    training_steps: int = 3


class Lstm(nn.Module):
    def __init__(self, dim, size):
        super().__init__()
        self.rnn = nn.LSTM(dim, size, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0].amax(dim=1)


class TextCnn(WideTextCnn):
    def __init__(self, dim, size):
        nn.Module.__init__(self)
        for i, width in enumerate((2, 3, 4), start=1):
            setattr(self, f"conv{i}", nn.Conv2d(1, 128, (width, dim)))
        self.embd = nn.Sequential(nn.Linear(3 * 128, size), nn.ReLU())


class Head(nn.Module):
    def __init__(self, dim, hidden, classes):
        super().__init__()
        self.module = layers((dim, *hidden), 0.0)
        self.fc_out = nn.Linear(hidden[-1], classes)

    def forward(self, tokens):
        return self.fc_out(self.module(torch.cat(list(tokens), dim=-1)))


class Interaction(nn.Module):
    def __init__(self, size, heads):
        super().__init__()
        self.inter_attention = nn.MultiheadAttention(size, heads)
        self.hence_attention = nn.MultiheadAttention(size, heads)

    def forward(self, own, other):
        a = self.inter_attention(own, other, other)[0]
        b = self.hence_attention(own, a, a)[0]
        return own + b * torch.sigmoid(a + b)


class Context(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        h = sizes.hidden
        for name, dim in zip(ORDER, sizes.dims, strict=True):
            gru = nn.GRU(h, h, sizes.context_layers, batch_first=True, bidirectional=True)
            setattr(self, f"{name}_emb_linear", nn.Linear(dim, h))
            setattr(self, f"{name}_gru", gru)
            setattr(self, f"{name}_gru_linear", nn.Sequential(nn.Linear(2 * h, h), nn.ReLU()))
        self.speaker_embedding = nn.Embedding(sizes.speakers, h)
        self.speaker_linear = nn.Linear(h, h)

    def forward(self, inputs):
        """[3, B, h]"""
        who = torch.cat([inputs["history_speaker"], inputs["speaker"]], dim=1)
        who = self.speaker_linear(self.speaker_embedding(who))
        found = []
        for name in ORDER:
            x = torch.cat([inputs[f"history_{name}"], inputs[name]], dim=1)
            x = torch.cat([getattr(self, f"{name}_emb_linear")(x), who], dim=1)
            x = getattr(self, f"{name}_gru")(x)[0][:, -1]
            found.append(getattr(self, f"{name}_gru_linear")(x))
        return torch.stack(found)


def networks(sizes, seed=0):
    torch.manual_seed(seed)
    found, h = {}, sizes.hidden
    for task, classes in zip(("Emo", "Int"), sizes.classes, strict=True):
        for (name, letter), dim in zip(ORDER.items(), sizes.dims, strict=True):
            found[task + letter] = (TextCnn if name == "text" else Lstm)(dim, h)
        layer = nn.TransformerEncoderLayer(h, sizes.fusion_heads, sizes.feedforward, 0.0)
        found[f"{task}Fusion"] = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        found[f"{task}C"] = Head(3 * h, sizes.cls_layers, classes)
    for pair in ("Emo_Int", "Int_Emo"):
        found[f"{pair}_interaction"] = Interaction(h, sizes.attention_heads)
    return found | {"Context": Context(sizes)}


def inputs(sizes, seed=0):
    rng, n = np.random.default_rng(seed), sizes.utterances
    parts = zip(ORDER, sizes.dims, sizes.steps, sizes.history_steps, strict=True)
    found = {}
    for name, dim, steps, before in parts:
        found[name] = np.float32(rng.normal(size=(n, steps, dim)))
        found[f"history_{name}"] = np.float32(rng.normal(size=(n, before, dim)))
    found["speaker"] = rng.integers(sizes.speakers, size=(n, 1))
    found["history_speaker"] = rng.integers(sizes.speakers, size=(n, sizes.history))
    for task, classes in zip(("emotion", "intent"), sizes.classes, strict=True):
        found[task] = rng.integers(classes, size=n)
    return found


def forward(nets, given):
    """{name in a file: tensor}"""
    context, tokens = nets["Context"](given), {}
    for task in ("Emo", "Int"):
        embeddings = [nets[task + letter](given[name]) for name, letter in ORDER.items()]
        tokens[task] = nets[f"{task}Fusion"](torch.stack(embeddings))
    found = {"output/context": context}
    for task, other, name in (("Emo", "Int", "emotion"), ("Int", "Emo", "intent")):
        own = (tokens[task] + context, tokens[other] + context)
        logits = nets[f"{task}C"](nets[f"{task}_{other}_interaction"](*own))
        found[f"output/{name}_tokens"], found[f"output/{name}_logits"] = tokens[task], logits
        found[f"loss/{name}"] = nn.functional.cross_entropy(logits, given[name])
    return found | {"loss/total": found["loss/emotion"] + found["loss/intent"]}


def values(nets, given, steps):
    """What a reference file says of the networks, which are trained by it."""
    given = {name: torch.tensor(x) for name, x in given.items()}
    found = {name: x.detach().numpy() for name, x in forward(nets, given).items()}
    adam = torch.optim.Adam(
        [p for net in nets.values() for p in net.parameters()], ADAM["lr"], (ADAM["b1"], 0.999)
    )
    for step in range(steps):
        loss = forward(nets, given)["loss/total"]
        found[f"loss_curve/{step}"] = loss.detach().numpy()
        adam.zero_grad()
        loss.backward()
        for net in nets.values():
            hold_keys(net)
            nn.utils.clip_grad_norm_(net.parameters(), ADAM["clip_norm_per_network"])
        adam.step()
    return found | named(f"param_after_{steps}_steps", nets)


def hold_keys(net):
    """Rounding alone gives the bias of keys a gradient, and Adam makes steps of any size of it."""
    for name, p in net.named_parameters():
        if name.endswith("in_proj_bias"):
            p.grad[len(p) // 3 : 2 * len(p) // 3] = 0


def named(prefix, nets):
    return {
        f"{prefix}/{name}/{key}": x.detach().numpy().copy()
        for name, net in nets.items()
        for key, x in net.state_dict().items()
    }


def write(path, sizes, seed=0):
    """A file as those of ../shared/parity."""
    nets, given = networks(sizes, seed), inputs(sizes, seed)
    first = named("param", nets)
    meta = {
        "model": "ei2",
        "hidden": sizes.hidden,
        "transformer_heads": sizes.fusion_heads,
        "transformer_feedforward": sizes.feedforward,
        "attention_heads": sizes.attention_heads,
        "context_layers": sizes.context_layers,
        "history": sizes.history,
        "cls_layers": sizes.cls_layers,
        "emotions": sizes.classes[0],
        "intents": sizes.classes[1],
        "token_order": list(ORDER),
        "optimizer": ADAM,
        "steps": sizes.training_steps,
    }
    np.savez(
        path,
        meta=json.dumps(meta),
        **first,
        **{f"input/{name}": x for name, x in given.items()},
        **values(nets, given, sizes.training_steps),
    )

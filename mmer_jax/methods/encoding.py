"""Encode once: two embeddings per modality, the present one and the absent one.

A missing modality enters its encoder as the same zeros for every utterance, so its embedding is one
vector, computed once a batch; a noisy one is encoded once per utterance. A pattern then is a
`where` over the two.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmer_jax.data.corpus import CorpusSpec, Modality
from mmer_jax.errors import UserError
from mmer_jax.methods.stage import Batch, Params
from mmer_jax.nn.encoders import FcEncoder, LSTMEncoder, TextCNN

ENCODERS = ("fc", "lstm", "textcnn")


class ModalityEncoders:
    """One encoder per modality, each a network of its own (`<prefix>_<name>`)."""

    def __init__(self, spec: CorpusSpec, model, quirks, prefix: str = "encoder"):
        """`model` holds embedding, encoders, pooling and text_widths; `quirks` pad_masking."""
        kinds = tuple(model.encoders) or tuple(_default_kind(m) for m in spec.modalities)
        if len(kinds) != len(spec.modalities):
            raise UserError(
                f"model.encoders {kinds} has {len(kinds)} entries for the modalities "
                f"{spec.names}; give one of {', '.join(ENCODERS)} for each"
            )
        self.spec, self.prefix = spec, prefix
        self.pad_masking = quirks.pad_masking
        self.modules = {
            m.name: _encoder(kind, m, model) for kind, m in zip(kinds, spec.modalities, strict=True)
        }

    def init(self, key: Array) -> Params:
        params = {}
        for i, m in enumerate(self.spec.modalities):
            variables = self.modules[m.name].init(
                jax.random.fold_in(key, i), jnp.zeros((1, *m.shape)), jnp.ones(1, int), None
            )
            params[f"{self.prefix}_{m.name}"] = variables["params"]
        return params

    def __call__(
        self, params: Params, batch: Batch, dropout=None, key: Array | None = None
    ) -> tuple[Float[Array, "B M h"], Float[Array, "... M h"]]:
        """(embeddings of the batch, embeddings of what a pattern takes away).

        The latter are [M, h], of absent modalities, or [B, M, h] where noise stands in for them:
        one noisy encoding of each utterance, whatever the number of patterns.
        """
        absent_key = None if key is None else jax.random.fold_in(key, len(self.spec.modalities))
        absent = self.absent(params, dropout, absent_key)
        if batch.noisy is None:
            return self._embeddings(params, batch, batch.features, dropout, key), absent
        both = jax.tree.map(lambda *x: jnp.concatenate(x), batch.features, batch.noisy)
        embeddings = self._embeddings(params, batch, both, dropout, key)
        present, noisy = jnp.split(embeddings, 2)
        return present, jnp.where(batch.present[..., None], noisy, absent[None])

    def _embeddings(self, params, batch, features, dropout, key) -> Float[Array, "n M h"]:
        """Of all utterances, or of n = 2B: the utterances and their noisy versions."""
        embeddings = []
        for i, m in enumerate(self.spec.modalities):
            x, steps = features[m.name], None
            if m.is_sequence:
                given = batch.lengths[m.name] if self.pad_masking else m.max_steps
                steps = jnp.broadcast_to(given, batch.weights.shape)
                steps = jnp.concatenate([steps] * (1 if batch.noisy is None else 2))
            rngs = {} if key is None else {"dropout": jax.random.fold_in(key, i)}
            embeddings.append(self._encode(params, m, x, steps, dropout, rngs))
        return jnp.stack(embeddings, axis=1)

    def absent(self, params: Params, dropout=None, key: Array | None = None) -> Float[Array, "M h"]:
        """The embeddings of absent modalities alone."""
        embeddings = []
        for i, m in enumerate(self.spec.modalities):
            rngs = {} if key is None else {"dropout": jax.random.fold_in(key, i)}
            x, steps = self._absent_input(m)
            embeddings.append(self._encode(params, m, x, steps, dropout, rngs))
        return jnp.concatenate(embeddings)

    def _absent_input(self, m: Modality) -> tuple[Array, Array | None]:
        """Zeros: [1, D], or a sequence [1, 1, D] of one step, the same whatever max_steps is.

        Without pad_masking it has all max_steps, as released.
        """
        if not m.is_sequence:
            return jnp.zeros((1, m.dim)), None
        steps = 1 if self.pad_masking else m.max_steps
        return jnp.zeros((1, steps, m.dim)), jnp.full(1, steps, jnp.int32)

    def _encode(self, params: Params, m: Modality, x, steps, dropout=None, rngs=None):
        with jax.named_scope(f"encode_{m.name}"):
            variables = {"params": params[f"{self.prefix}_{m.name}"]}
            return self.modules[m.name].apply(variables, x, steps, dropout, rngs=rngs)


def choose(
    available: Bool[Array, "... B M"],
    present: Float[Array, "B M h"],
    absent: Float[Array, "... M h"],
) -> Float[Array, "... B M h"]:
    """The embeddings under patterns: present ones where available, else the absent ones.

    `absent` is [M, h], or [B, M, h] where it is noise that differs from utterance to utterance.
    """
    shape = (*available.shape, present.shape[-1])
    return jnp.where(
        available[..., None], jnp.broadcast_to(present, shape), jnp.broadcast_to(absent, shape)
    )


def flatten(embeddings: Float[Array, "... M h"]) -> Float[Array, "... D"]:
    """Modalities side by side, in config order."""
    return embeddings.reshape(*embeddings.shape[:-2], -1)


def _default_kind(m: Modality) -> str:
    """The paper's choice: TextCNN for text, LSTM for other sequences, FC for vectors."""
    if not m.is_sequence:
        return "fc"
    return "textcnn" if m.name == "text" else "lstm"


def _encoder(kind: str, m: Modality, model):
    if kind not in ENCODERS:
        raise UserError(f"unknown encoder '{kind}'; choose one of: {', '.join(ENCODERS)}")
    if (kind == "fc") == m.is_sequence:
        shape = "a sequence" if m.is_sequence else "a vector per utterance"
        raise UserError(f"encoder '{kind}' does not fit modality '{m.name}', which is {shape}")
    size = model.embedding
    if kind == "fc":
        return FcEncoder((size, size))
    if kind == "lstm":
        return LSTMEncoder(size, model.pooling)
    return TextCNN(size, widths=tuple(model.text_widths))

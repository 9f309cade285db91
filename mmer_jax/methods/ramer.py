"""RAMER: retrieval-augmented recognition with missing modalities.

Fan et al., "Leveraging retrieval augment approach for multimodal emotion recognition under missing
modalities", 2024. METHODS §5.

Stage 1 (ramer_base) trains an encoder and a classifier of each modality on full modality, without
any interaction between modalities; the encoder's answer is the emotion hidden state. The database
holds the hidden states of the training utterances and of any number of unlabelled ones, which may
lack modalities. Each modality of an utterance asks for its nearest neighbours; where several are
available the list counts whose last similarity is the highest. A missing slot is filled with the
normalised sum of the neighbours' hidden states in that modality. Stage 2 trains a classifier on
the filled slots under all patterns. Encoders and database stay as they are; with
stages.ramer.refresh_epochs the encoders train on and the database is made anew after so many.

Neighbours depend on an utterance and on nothing else, so that every pattern chooses among M lists.
A slot that no neighbour has is zero, as is every missing slot without any neighbour.

Ablations: model.retrieval = "random" (any utterances of the database) or "none" (zeros), and
model.neighbours. Released behaviour: quirks.drop_first, quirks.normalize_query.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmer_jax.data.corpus import CorpusSpec
from mmer_jax.losses import task_terms
from mmer_jax.methods.encoding import flatten
from mmer_jax.methods.stage import OTHER, Batch, Params, Stage, own_places
from mmer_jax.nn.heads import FcClassifier
from mmer_jax.nn.tokens import TokenEncoder
from mmer_jax.retrieval import TopK, top_k


class HiddenStates:
    """The encoders of all modalities, each a network of its own (`encoder_<name>`)."""

    def __init__(self, config, spec: CorpusSpec):
        self.spec, self.size = spec, config.model.embedding
        self.encoders = {
            m.name: TokenEncoder(self.size, max_steps=m.max_steps, **config.model.transformer)
            for m in spec.modalities
        }

    def init(self, key: Array) -> Params:
        params = {}
        for i, m in enumerate(self.spec.modalities):
            variables = self.encoders[m.name].init(
                jax.random.fold_in(key, i), jnp.zeros((1, *m.shape)), jnp.ones(1, int)
            )
            params[f"encoder_{m.name}"] = variables["params"]
        return params

    def __call__(
        self, params: Params, batch: Batch, features=None, dropout=None, key=None
    ) -> Float[Array, "B M h"]:
        """Of batch.features, or of `features` in their place; zeros where a modality is absent."""
        features, found = batch.features if features is None else features, []
        for i, m in enumerate(self.spec.modalities):
            with jax.named_scope(f"encode_{m.name}"):
                hidden = self.encoders[m.name].apply(
                    {"params": params[f"encoder_{m.name}"]},
                    features[m.name],
                    batch.lengths.get(m.name),
                    dropout,
                    rngs={} if key is None else {"dropout": jax.random.fold_in(key, i)},
                )
            found.append(hidden)
        return jnp.where(batch.present[..., None], jnp.stack(found, axis=1), 0.0)


class BaseModel:
    """Stage 1: every modality learns alone."""

    def __init__(self, config, spec: CorpusSpec):
        self.spec, self.hidden, self.names = spec, HiddenStates(config, spec), spec.names
        layers = tuple(config.model.classifier)
        self.classifier = FcClassifier(layers, spec.n_outputs, batch_norm=True)

    def init(self, key, earlier):
        del earlier
        keys = jax.random.split(key)
        params = self.hidden.init(keys[0]) | {"statistics": {}}
        for i, name in enumerate(self.names):
            variables = self.classifier.init(
                jax.random.fold_in(keys[1], i), jnp.zeros((1, self.hidden.size))
            )
            params[f"classifier_{name}"] = variables["params"]
            params["statistics"][name] = variables["statistics"]
        return params

    def classify(self, params, name: str, hidden, dropout=None, weights=None, key=None):
        """(logits [B, C] by one modality's hidden states, its new statistics)."""
        return self.classifier.apply(
            {"params": params[f"classifier_{name}"], "statistics": params["statistics"][name]},
            hidden,
            dropout,
            weights,
            rngs={} if key is None else {"dropout": key},
            mutable=["statistics"],
        )

    def loss(self, params, batch: Batch, key, hyper):
        keys = jax.random.split(key, 1 + len(self.names))
        hidden = self.hidden(params, batch, None, hyper["encoder_dropout"], keys[0])
        terms, statistics = {}, {}
        for i, name in enumerate(self.names):
            weights = jnp.where(batch.present[:, i], batch.weights, 0.0)
            logits, updated = self.classify(
                params, name, hidden[:, i], hyper["dropout"], weights, keys[1 + i]
            )
            terms[name] = task_terms(self.spec, logits[None], batch.labels, weights[None])["task"]
            statistics[name] = updated["statistics"]
        total = sum(terms.values()) / len(terms)
        return total, {"task": total} | terms | {"statistics": statistics}

    def predict(self, params, batch: Batch):
        """The mean of what the available modalities say."""
        hidden = self.hidden(params, batch)
        said = jnp.stack(
            [self.classify(params, n, hidden[:, i])[0] for i, n in enumerate(self.names)], axis=1
        )
        share = batch.available / jnp.maximum(batch.available.sum(axis=-1, keepdims=True), 1)
        return jnp.einsum("kbm,bmc->kbc", share, said)


class RAMER:
    """Stage 2: the retrieval and the classifier."""

    def __init__(self, config, spec: CorpusSpec):
        self.spec, self.hidden, self.names = spec, HiddenStates(config, spec), spec.names
        layers = tuple(config.model.classifier)
        self.classifier = FcClassifier(layers, spec.n_outputs, batch_norm=True)
        self.k, self.retrieval = config.model.neighbours, config.model.retrieval
        self.drop_first = config.quirks.drop_first
        self.normalize_query = config.quirks.normalize_query
        self.trains_encoders = config.stages.ramer.refresh_epochs > 0

    def init(self, key, earlier):
        width = len(self.names) * self.hidden.size
        variables = self.classifier.init(key, jnp.zeros((1, width)))
        params = {"classifier": variables["params"], "statistics": variables["statistics"]}
        return params | (_encoders(earlier) if self.trains_encoders else {})

    # ---- the base model and the database ----

    def prepare(self, earlier: dict[str, Params], batch: Batch) -> dict[str, Array]:
        return {"hidden": self.hidden(_encoders(earlier), batch), "present": batch.present}

    def constants(self, earlier: dict[str, Params]) -> dict[str, Params]:
        return {"encoders": _encoders(earlier)}

    def relate(self, batch: Batch) -> dict[str, Array]:
        """Of each modality its neighbours' places [B, M, k], -1: none, and the last similarity."""
        found = [self.neighbours(batch, m) for m in range(len(self.names))]
        rows = jnp.stack([f.rows for f in found], axis=1)
        scores = jnp.stack([f.scores for f in found], axis=1)
        last = jnp.min(jnp.where(rows >= 0, scores, jnp.inf), axis=-1)
        return {"neighbours": rows, "similarity": jnp.where(rows[..., 0] >= 0, last, -jnp.inf)}

    def neighbours(self, batch: Batch, m: int) -> TopK:
        """What modality `m` finds; nothing where it is absent."""
        database, own = batch.constants["database"], own_places(batch)
        valid = database["present"][:, m]
        if self.retrieval == "random":
            found = _random(batch.features[self.names[m]], self.k, own, valid)
        else:
            query, drop = batch.frozen["hidden"][:, m], int(self.drop_first)
            exclude = None if self.drop_first else own
            found = top_k(
                query,
                database["hidden"][:, m],
                self.k + drop,
                exclude=exclude,
                valid=valid,
                query_block=None,
            )
            found = TopK(*(x[:, drop:] for x in found))
            if not self.normalize_query:
                found = found._replace(scores=found.scores * _norm(query))
        return found._replace(rows=jnp.where(batch.present[:, m, None], found.rows, -1))

    # ---- slots ----

    def own(self, hidden):
        return hidden / jnp.maximum(_norm(hidden), 1e-12) if self.normalize_query else hidden

    def retrieved(self, batch: Batch) -> Float[Array, "K B M h"]:
        """What each pattern's neighbours have in every modality."""
        shape = (*batch.available.shape, self.hidden.size)
        if self.retrieval == "none":
            return jnp.zeros(shape)
        database = batch.constants["database"]
        fills = fill(database["hidden"], database["present"], batch.frozen["neighbours"])
        return _of_list(fills, self.asking(batch))

    def asking(self, batch: Batch) -> Int[Array, "K B"]:
        """The modality whose list counts under each pattern."""
        similarity = jnp.where(batch.available, batch.frozen["similarity"][None], -jnp.inf)
        return jnp.argmax(similarity, axis=-1)

    def chosen(self, batch: Batch) -> Int[Array, "K B k"]:
        """The neighbours under each pattern."""
        return _of_list(batch.frozen["neighbours"], self.asking(batch))

    def slots(self, params, batch: Batch, dropout=None, key=None) -> Float[Array, "K B M h"]:
        """The hidden states that the classifier reads: own, noisy or retrieved ones."""
        keys = (None, None) if key is None else jax.random.split(key)
        encoders, own = batch.constants["encoders"], batch.frozen["hidden"]
        if self.trains_encoders:
            encoders, own = params, self.hidden(params, batch, None, dropout, keys[0])
        filled = jnp.where(
            batch.available.any(axis=-1)[..., None, None], self.retrieved(batch), 0.0
        )
        if batch.noisy is not None:
            noisy = self.hidden(encoders, batch, batch.noisy, dropout, keys[1])
            filled = jnp.where(batch.present[None, ..., None], self.own(noisy)[None], filled)
        return jnp.where(batch.available[..., None], self.own(own)[None], filled)

    def classify(self, params, slots, dropout=None, weights=None, key=None):
        variables = {"params": params["classifier"], "statistics": params["statistics"]}
        rngs = {} if key is None else {"dropout": key}
        return self.classifier.apply(
            variables, flatten(slots), dropout, weights, rngs=rngs, mutable=["statistics"]
        )

    def loss(self, params, batch: Batch, key, hyper):
        keys, weights = jax.random.split(key), batch.pattern_weights
        dropout = hyper["encoder_dropout"] if self.trains_encoders else None
        slots = self.slots(params, batch, dropout, keys[0])
        logits, updated = self.classify(params, slots, hyper["dropout"], weights, keys[1])
        terms = task_terms(self.spec, logits, batch.labels, weights)
        return terms["task"], terms | {"statistics": updated["statistics"]}

    def predict(self, params, batch: Batch):
        return self.classify(params, self.slots(params, batch))[0]

    def study(self, batch: Batch) -> dict[str, Array]:
        """The neighbours that fill what is missing, and the similarity of the last one."""
        left = batch.available.any(axis=-1)
        places = jnp.where(left[..., None], self.chosen(batch), -1)
        rows = batch.constants["database"]["row"][places]
        rows = jnp.where(rows == OTHER, OTHER - places, rows)  # unlabelled ones stand first
        found = {"neighbours": jnp.where(places >= 0, rows, -1)}
        if self.retrieval == "nearest":
            similarity = jnp.where(batch.available, batch.frozen["similarity"][None], -jnp.inf)
            found["similarity"] = similarity.max(axis=-1)
        return found

    def imagined(self, params, batch: Batch):
        del params
        own = self.own(batch.frozen["hidden"])[None]
        retrieved = self.retrieved(batch)
        return retrieved, jnp.broadcast_to(own, retrieved.shape)


def _encoders(earlier: dict[str, Params]) -> Params:
    """The encoders as they are by now."""
    trained = earlier.get("ramer", earlier["ramer_base"])
    return {name: p for name, p in trained.items() if name.startswith("encoder_")}


def fill(
    hidden: Float[Array, "R M h"], present: Bool[Array, "R M"], neighbours: Int[Array, "B Q k"]
) -> Float[Array, "B Q M h"]:
    """The normalised sum of neighbours' hidden states; zeros where none has the modality.

    Args:
      hidden, present: the database and which modalities its utterances have.
      neighbours: places in it of Q lists of each utterance; -1: none.
    """
    counts = (neighbours >= 0)[..., None] & present[neighbours]
    total = jnp.sum(jnp.where(counts[..., None], hidden[neighbours], 0.0), axis=-3)
    return total / jnp.maximum(_norm(total), 1e-12)


def _of_list(lists: Array, which: Int[Array, "K B"]) -> Array:
    """[B, M, ...] of M lists -> [K, B, ...] of one of them."""
    return lists[jnp.arange(which.shape[1])[None], which]


def _norm(x):
    return jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True))


def _random(x: Float[Array, "B ..."], k: int, own: Int[Array, " B"], valid) -> TopK:
    """k rows of the database, each as likely, the same whenever the utterance comes again.

    The draw depends on the bits of its features; zeros (padding) have none.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    seeds = jnp.sum(bits, axis=tuple(range(1, x.ndim)), dtype=jnp.uint32)

    def draw(seed, own):
        scores = jax.random.uniform(jax.random.fold_in(jax.random.key(0), seed), valid.shape)
        scores = jnp.where(valid & (jnp.arange(len(valid)) != own), scores, -jnp.inf)
        scores = jnp.pad(scores, (0, max(0, k - len(scores))), constant_values=-jnp.inf)
        best, rows = jax.lax.top_k(scores, k)
        return TopK(best, jnp.where(best > -jnp.inf, rows, -1))

    return jax.vmap(draw)(seeds, own)


def stages(config, spec: CorpusSpec) -> tuple[Stage, ...]:
    base, model = BaseModel(config, spec), RAMER(config, spec)
    return (
        Stage(
            name="ramer_base",
            settings=config.stages.ramer_base,
            patterns="full",
            init=base.init,
            loss=base.loss,
            predict=base.predict,
        ),
        Stage(
            name="ramer",
            settings=config.stages.ramer,
            patterns="missing",
            init=model.init,
            loss=model.loss,
            predict=model.predict,
            prepare=model.prepare,
            constants=model.constants,
            relate=None if model.retrieval == "none" else model.relate,
            recalls=True,
            refresh_epochs=config.stages.ramer.refresh_epochs,
            imagine=model.imagined,
            study=None if model.retrieval == "none" else model.study,
        ),
    )

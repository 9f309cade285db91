"""Exact nearest neighbours on the device: brute force in blocks, whatever the size of the database.

    found = top_k(queries, database, 5, metric="cosine", exclude=own_rows)
    found.rows      # [Q, 5], -1 where there is no further row

A block of queries meets a block of rows as one matrix product, of which only the largest score of
every 16 consecutive rows is kept: the k best rows lie in the k groups with the largest maxima. The
rows of the best groups are then scored once more, one by one: equal rows have equal scores
wherever they stand.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

METRICS = ("inner", "cosine", "l2")
SCORINGS = ("float32", "bfloat16", "int8")
GROUP = 16  # rows of which the block's product keeps one score
RERANKED = 8192  # rows of candidates that lie in memory at a time
UNIT = 2.0**-24  # relative rounding error of a float32 operation


class TopK(NamedTuple):
    """The k best rows of each query, best first; equal scores in the order of rows.

    Attributes:
      scores: larger is nearer: the inner product, the cosine (0 where a norm is 0), or minus the
        squared distance; -inf where there are fewer than k rows.
      rows: -1 there.
    """

    scores: Float[Array, "Q k"]
    rows: Int[Array, "Q k"]


def top_k(
    queries: Float[Array, "Q D"],
    database: Float[Array, "N D"],
    k: int,
    *,
    metric: str = "cosine",
    exclude: Int[Array, " Q"] | None = None,
    valid: Bool[Array, " N"] | None = None,
    scoring: str = "float32",
    query_block: int | None = 1024,
    row_block: int = 4096,
) -> TopK:
    """The k nearest rows of every query, exactly.

    Memory beside the arguments, whatever Q and N: float32 numbers for query_block × row_block
    scores, a block of rows and RERANKED candidates of D each (24 MiB for D = 256); three numbers
    for every row; with another `scoring` the database in it, too.

    `scoring` other than float32 is faster where the hardware multiplies such numbers faster, and
    finds the same: a block of queries for which an error bound does not prove that is searched
    again in float32 (under `vmap` always, so that nothing is gained there). What float32 means:
    scores are off by at most 2·D·2⁻²⁴ of the product of the norms (of l2, of the square of their
    sum), programs of other shapes may round otherwise, and rows as close as that may change places.

    Args:
      queries, database: finite numbers of any float dtype; computed with in float32.
      k: neighbours of each query.
      metric: "inner", "cosine" or "l2".
      exclude: a row that is no neighbour of the query (itself); -1: none.
      valid: rows that may be found; None: all.
      scoring: "float32", "bfloat16" or "int8".
      query_block: queries at a time; None: all at once, so that their number may be unknown when
        the program is compiled.
      row_block: rows at a time.
    """
    if metric not in METRICS or scoring not in SCORINGS:
        raise ValueError(f"metric '{metric}' not in {METRICS} or scoring '{scoring}' in {SCORINGS}")
    count = queries.shape[0]
    queries = queries.astype(jnp.float32)
    exclude = jnp.full(count, -1) if exclude is None else exclude
    valid = jnp.ones(database.shape[0], bool) if valid is None else valid
    search = functools.partial(_search, _index(database, valid, metric, scoring, row_block), k)
    if query_block is None:
        return search(queries, exclude)
    block = max(1, min(query_block, count))
    filling = -count % block

    def blocks(x, value):
        x = jnp.pad(x, [(0, filling)] + [(0, 0)] * (x.ndim - 1), constant_values=value)
        return x.reshape(-1, block, *x.shape[1:])

    found = jax.lax.map(lambda some: search(*some), (blocks(queries, 0), blocks(exclude, -1)))
    return TopK(*(x.reshape(-1, k)[:count] for x in found))


def sharded_top_k(
    queries: Float[Array, "Q D"],
    database: Float[Array, "N D"],
    k: int,
    *,
    mesh: Mesh,
    exclude: Int[Array, " Q"] | None = None,
    valid: Bool[Array, " N"] | None = None,
    **how: Any,
) -> TopK:
    """As `top_k`, over the mesh's axis 'data': each device searches its part of the rows.

    Args:
      queries: on every device.
      database: rows are divided over 'data'; N may be any number.
      mesh: with an axis 'data'.
      how: metric, scoring and blocks of `top_k`.
    """
    parts = mesh.shape["data"]
    filling = -database.shape[0] % parts
    exclude = jnp.full(queries.shape[0], -1) if exclude is None else exclude
    valid = jnp.ones(database.shape[0], bool) if valid is None else valid
    database = jnp.pad(database, ((0, filling), (0, 0)))
    valid = jnp.pad(valid, (0, filling))

    def mine(queries, exclude, database, valid):
        first = jax.lax.axis_index("data") * database.shape[0]
        found = top_k(queries, database, k, exclude=exclude - first, valid=valid, **how)
        rows = jnp.where(found.rows >= 0, found.rows + first, -1)
        return merge(*(jax.lax.all_gather(x, "data") for x in (found.scores, rows)))

    whole, part = PartitionSpec(), PartitionSpec("data")
    search = jax.shard_map(
        mine, mesh=mesh, in_specs=(whole, whole, part, part), out_specs=whole, check_vma=False
    )
    return TopK(*search(queries, exclude, database, valid))


def merge(scores: Float[Array, "P Q k"], rows: Int[Array, "P Q k"]) -> TopK:
    """The k best of P lists of k, of parts of a database in the order of their rows."""
    k = scores.shape[-1]
    scores, rows = (x.swapaxes(0, 1).reshape(x.shape[1], -1) for x in (scores, rows))
    best, place = jax.lax.top_k(scores, k)
    return TopK(best, jnp.take_along_axis(rows, place, axis=1))


# ---- blocks ----


class _Codes(NamedTuple):
    """Vectors as they are multiplied: x = scale · codes, off by at most `error` in the norm."""

    codes: Array  # [n, D]
    scale: Float[Array, " n"]
    error: Float[Array, " n"]


class _Index(NamedTuple):
    """A database ready to be searched: the score of a block is product · scale + bias."""

    metric: str
    scoring: str
    database: Float[Array, "N D"]
    codes: Array  # [N, D]
    scale: Float[Array, " N"]
    bias: Float[Array, " N"]  # -inf of rows that may not be found
    inverse_norm: Float[Array, " N"]  # of cosine; else ones
    radius: Float[Array, ""]  # the largest norm of a row
    error: Float[Array, ""]  # the largest error of its codes
    row_block: int


def _index(database, valid, metric: str, scoring: str, row_block: int) -> _Index:
    if database.shape[0] < row_block:  # one block of whole groups
        filling = max(GROUP, -(-database.shape[0] // GROUP) * GROUP) - database.shape[0]
        database = jnp.pad(database, ((0, filling), (0, 0)))
        valid = jnp.pad(valid, (0, filling))
    row_block = min(-(-row_block // GROUP) * GROUP, database.shape[0])
    squares = jnp.sum(database.astype(jnp.float32) ** 2, axis=1)
    norms = jnp.sqrt(squares)
    inverse = _inverse(norms) if metric == "cosine" else jnp.ones_like(norms)
    coded = _encode(database, scoring)
    bias = -0.5 * squares if metric == "l2" else jnp.zeros_like(norms)
    return _Index(
        metric=metric,
        scoring=scoring,
        database=database,
        codes=coded.codes,
        scale=coded.scale * inverse,
        bias=jnp.where(valid, bias, -jnp.inf),
        inverse_norm=inverse,
        radius=jnp.max(jnp.where(valid, norms * inverse, 0.0)),
        error=jnp.max(jnp.where(valid, coded.error * inverse, 0.0)),
        row_block=row_block,
    )


def _encode(x, scoring: str) -> _Codes:
    if scoring == "float32":
        return _Codes(x, jnp.ones(x.shape[0]), jnp.zeros(x.shape[0]))
    x = x.astype(jnp.float32)
    if scoring == "bfloat16":
        codes, scale = x.astype(jnp.bfloat16), jnp.ones(x.shape[0])
    else:
        scale = jnp.max(jnp.abs(x), axis=1) / 127
        codes = jnp.round(x / jnp.where(scale > 0, scale, 1.0)[:, None]).astype(jnp.int8)
    error = x - codes.astype(jnp.float32) * scale[:, None]
    return _Codes(codes, scale, jnp.sqrt(jnp.sum(error**2, axis=1)))


def _search(index: _Index, k: int, queries: Float[Array, "b D"], exclude: Int[Array, " b"]) -> TopK:
    """A block of queries against all rows."""
    if index.metric == "cosine":
        norms = jnp.sqrt(jnp.sum(queries**2, axis=1))
        queries = queries * _inverse(norms)[:, None]
    exact = index._replace(codes=index.database, scale=index.inverse_norm, scoring="float32")

    def in_float32():  # one group more for the excluded row, two more for rounding
        return _rerank(index, k, queries, exclude, *_best_groups(exact, queries, k + 3))

    if index.scoring == "float32":
        return in_float32()
    more = 2 * k + 4 if index.scoring == "bfloat16" else 8 * k + 16
    best = _best_groups(index, queries, more)
    found = _rerank(index, k, queries, exclude, *best)
    certain = _certain(index, queries, best[0][:, -1], found.scores[:, -1])
    return jax.lax.cond(jnp.all(certain), lambda: found, in_float32)


def _best_groups(index: _Index, queries, count: int):
    """(largest score, number) of the `count` best groups of each query, [b, count] each.

    The last block of rows ends with the database and begins inside the one before it; what both
    have counts in the former only.
    """
    n_rows, size = index.database.shape[0], index.row_block
    groups = size // GROUP
    coded = _encode(queries, index.scoring)
    wide = jnp.int32 if index.scoring == "int8" else jnp.float32

    def step(best, block):
        start = jnp.minimum(block * size, n_rows - size)

        def part(x):
            return jax.lax.dynamic_slice_in_dim(x, start, size)

        rows = part(index.codes)
        product = jax.lax.dot_general(
            coded.codes,
            rows if index.scoring != "float32" else rows.astype(jnp.float32),
            (((1,), (1,)), ((), ())),
            precision=jax.lax.Precision.HIGHEST,
            preferred_element_type=wide,
        )
        first = start + jnp.arange(size) < block * size
        bias = jnp.where(first, -jnp.inf, part(index.bias))
        scale = coded.scale[:, None] * part(index.scale)[None]
        score = product.astype(jnp.float32) * scale + bias[None]
        largest = jnp.max(score.reshape(-1, groups, GROUP), axis=2)
        numbers = jnp.broadcast_to(block * groups + jnp.arange(groups)[None], largest.shape)
        values = jnp.concatenate([best[0], largest], axis=1)
        numbers = jnp.concatenate([best[1], numbers], axis=1)
        values, place = jax.lax.top_k(values, count)
        return (values, jnp.take_along_axis(numbers, place, axis=1)), None

    none = jnp.full((queries.shape[0], count), -jnp.inf), jnp.zeros((queries.shape[0], count), int)
    return jax.lax.scan(step, none, jnp.arange(-(-n_rows // size)))[0]


def _rerank(index: _Index, k: int, queries, exclude, values, numbers):
    """The k best rows of some groups."""
    n_rows, size = index.database.shape[0], index.row_block
    groups = size // GROUP

    def of_query(query, exclude, values, numbers):
        order = jnp.argsort(numbers)  # so that equal scores come in the order of rows
        values, numbers = values[order][:, None], numbers[order][:, None]
        first = numbers // groups * size  # row of the group's block
        start = jnp.minimum(first, n_rows - size) + numbers % groups * GROUP
        rows = start + jnp.arange(GROUP)[None]
        allowed = (rows >= first) & (values > -jnp.inf)
        allowed &= (rows != exclude) & (index.bias[rows] > -jnp.inf)
        rows, allowed = rows.reshape(-1), allowed.reshape(-1)
        vectors = index.database[rows].astype(jnp.float32)
        if index.metric == "l2":
            score = -jnp.sum((query[None] - vectors) ** 2, axis=1)
        else:
            score = jnp.sum(query[None] * vectors, axis=1) * index.inverse_norm[rows]
        score = jnp.where(allowed, score, -jnp.inf)
        best, place = jax.lax.top_k(score, k)
        return TopK(best, jnp.where(best > -jnp.inf, rows[place], -1))

    given = (queries, exclude, values, numbers)
    if not isinstance(queries.shape[0], int):  # unknown: no loop over parts of it
        return jax.vmap(of_query)(*given)
    together = max(1, RERANKED // (values.shape[1] * GROUP))
    return jax.lax.map(lambda some: of_query(*some), given, batch_size=together)


def _certain(index: _Index, queries, last_group, kth) -> Bool[Array, " b"]:
    """Whether no row outside the candidates can reach the k-th score.

    By Cauchy-Schwarz a score from codes is off by at most |q - q̂|·|d| + |q̂|·|d - d̂|, and any by
    `rounding`.
    """
    norm = jnp.sqrt(jnp.sum(queries**2, axis=1))
    rounding = 2 * queries.shape[1] * UNIT * norm * index.radius
    if index.metric == "l2":  # in units of the blocks' score, q·d - |d|²/2
        rounding = 2 * queries.shape[1] * UNIT * (norm + index.radius) ** 2
        kth = (kth + norm**2) / 2
    own = _encode(queries, index.scoring).error
    error = own * index.radius + (norm + own) * index.error + rounding
    return (last_group + error < kth - rounding) | (last_group == -jnp.inf)


def _inverse(norms):
    return jnp.where(norms > 0, 1 / jnp.where(norms > 0, norms, 1.0), 0.0)

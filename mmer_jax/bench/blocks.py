"""Where a training step's time goes: each block's loss and gradient alone, and its FLOPs.

Products are counted by hand (2 FLOPs a multiply-add); a gradient costs two more products of the
size of the forward one, but one where the input is data. The rates are to be read beside that of a
large matrix product on the same machine.
"""

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mmer_jax.bench.setting import BATCH, ORIGINAL
from mmer_jax.nn.cascade import InvariantCascade
from mmer_jax.nn.encoders import LSTMEncoder, TextCNN

H = 128
STEPS = 4  # inside one program, so that memory is allocated once, as in training


def matmul_gflops(size: int = 2048) -> float:
    """GFLOP/s of a large float32 product here, the best of several."""
    a = jnp.ones((size, size))
    product = jax.jit(lambda a: a @ a)
    return 2 * size**3 / min(_times(lambda: product(a), 9)) / 1e9


def measure(repeats: int) -> list[dict[str, object]]:
    """One line for each block: milliseconds a step, GFLOP a step, GFLOP/s."""
    rows = []
    for name, gflop, step, params, inputs in _blocks():
        run = _steps(step)
        seconds = statistics.median(_times(lambda r=run, p=params, x=inputs: r(p, x), repeats))
        ms = 1e3 * seconds / STEPS
        rows.append({"block": name, "ms": ms, "gflop": gflop, "gflops": gflop / ms * 1e3})
    return rows


def _blocks():
    key = jax.random.key(0)
    for name, (dim, steps) in ORIGINAL.items():
        module = TextCNN(H) if name == "text" else LSTMEncoder(H)
        x = jax.random.normal(key, (STEPS, BATCH, steps, dim))
        lengths = jnp.full(BATCH, steps)
        params = module.init(key, x[0], lengths, None)["params"]

        def loss(params, x, module=module, lengths=lengths):
            rngs = {"dropout": jax.random.key(1)}
            return jnp.sum(module.apply({"params": params}, x, lengths, 0.5, rngs=rngs) ** 2)

        label = f"{name}: {type(module).__name__} {steps}×{dim}"
        yield label, _encoder_gflop(name, dim, steps), loss, params, x

    width, n_patterns = 3 * H, 2**3 - 2
    cascade = InvariantCascade((256, 128, 64), 5)
    x = 0.1 * jax.random.normal(key, (STEPS, n_patterns, BATCH, width))
    params = cascade.init(key, x[0], x[0])["params"]

    def cascade_loss(params, x):
        # In training the gradient goes on into the encoders: so it must reach the input here too.
        x = x * (1 + params["transition0"]["bias"][0])
        imagined, latents = cascade.apply({"params": params}, x, x)
        return jnp.mean(imagined**2) + jnp.mean(latents**2)

    block = 2 * (width * 256 + 256 * 128 + 128 * 64)
    gflop = 3 * 2 * BATCH * n_patterns * (5 * block + 2 * width**2) / 1e9
    yield f"cascade, {n_patterns} patterns", gflop, cascade_loss, params, x


def _encoder_gflop(name: str, dim: int, steps: int) -> float:
    if name == "text":  # forward and weight gradient
        return 2 * 2 * BATCH * steps * dim * H * (3 + 4 + 5) / 1e9
    projection, recurrence = dim * 4 * H, H * 4 * H
    return 2 * BATCH * steps * (2 * projection + 3 * recurrence) / 1e9


def _steps(loss: Callable):
    """STEPS gradient steps in one program."""

    def one(params, x):
        gradient = jax.grad(loss)(params, x)
        return jax.tree.map(lambda p, g: p - 1e-9 * g, params, gradient), None

    return jax.jit(lambda params, xs: jax.lax.scan(one, params, xs)[0])


def _times(function: Callable, repeats: int) -> list[float]:
    jax.block_until_ready(function())
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function())
        found.append(time.perf_counter() - start)
    return found

"""The networks of `compiled.py` written in jax, each with a training step by Adam under jax.jit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Params = list[Any]
Forward = Callable[[Params, Any], Any]


def _linear(p: Params, x: Any) -> Any:
    return x @ p[0].T + p[1]


def mlp(params: Params, x: Any) -> Any:
    """784-256-128-64-10 with relu between."""
    for i, p in enumerate(params):
        x = _linear(p, x)
        x = jax.nn.relu(x) if i < len(params) - 1 else x
    return x


def lenet(params: Params, x: Any) -> Any:
    """LeNet-5 on 28 x 28 images."""
    for p, padding in zip(params[:2], (2, 0), strict=True):
        x = jax.lax.conv(x, p[0], (1, 1), "SAME" if padding else "VALID") + p[1][:, None, None]
        x = jax.lax.reduce_window(jax.nn.relu(x), -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    return mlp(params[2:], x.reshape(len(x), -1))


def _norm(p: Params, x: Any) -> Any:
    mean = x.mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5) * p[0] + p[1]


def transformer(params: Params, words: Any) -> Any:
    """Two encoder layers with 4 heads between an embedding and a linear layer."""
    x = params[0][words]
    for projections, out, first, second, norm1, norm2 in params[1]:
        heads = [_linear(p, x).reshape(*x.shape[:2], 4, -1).transpose(0, 2, 1, 3) for p in projections]
        weights = jax.nn.softmax(heads[0] @ heads[1].swapaxes(-1, -2) / heads[0].shape[-1] ** 0.5)
        x = _norm(norm1, x + _linear(out, (weights @ heads[2]).transpose(0, 2, 1, 3).reshape(x.shape)))
        x = _norm(norm2, x + _linear(second, jax.nn.gelu(_linear(first, x), approximate=False)))
    return _linear(params[2], x)


def _parameters(name: str) -> tuple[Forward, Params]:
    rng = np.random.default_rng(0)

    def random(*shape: int) -> Any:
        return jnp.asarray(rng.normal(size=shape).astype(np.float32) * 0.05)

    def linear(inputs: int, outputs: int) -> Params:
        return [random(outputs, inputs), random(outputs)]

    if name.startswith("MLP"):
        return mlp, [linear(784, 256), linear(256, 128), linear(128, 64), linear(64, 10)]
    if name.startswith("LeNet"):
        convolutions = [[random(6, 1, 5, 5), random(6)], [random(16, 6, 5, 5), random(16)]]
        return lenet, [*convolutions, linear(400, 120), linear(120, 84), linear(84, 10)]
    layers = [
        [[linear(128, 128) for _ in range(3)], linear(128, 128), linear(128, 512), linear(512, 128),
         [random(128), random(128)], [random(128), random(128)]]
        for _ in range(2)
    ]  # fmt: skip
    return transformer, [random(64, 128), layers, linear(128, 64)]


def training_step(name: str, arrays: tuple[Any, Any]) -> Callable[[], Any]:
    """A step of the network by this name; parameters and Adam's state go in and out, their memory is used again."""
    forward, params = _parameters(name)
    x, y = (jnp.asarray(a) for a in arrays)

    def loss_of(params: Params, x: Any, y: Any) -> Any:
        scores = forward(params, x)
        likely = jax.nn.log_softmax(scores.reshape(-1, scores.shape[-1]))
        return -jnp.take_along_axis(likely, y.reshape(-1, 1), 1).mean()

    def step(params: Params, m: Params, v: Params, count: Any, x: Any, y: Any) -> tuple[Any, ...]:
        loss, grads = jax.value_and_grad(loss_of)(params, x, y)
        count = count + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
        first, second = 1 - 0.9**count, 1 - 0.999**count
        params = jax.tree.map(
            lambda p, m, v: p - 1e-3 * (m / first) / (jnp.sqrt(v / second) + 1e-8), params, m, v
        )  # fmt: skip
        return params, m, v, count, loss

    compiled = jax.jit(step, donate_argnums=(0, 1, 2, 3))
    zeros = [jax.tree.map(jnp.zeros_like, params) for _ in range(2)]
    state = (params, *zeros, jnp.zeros(()))

    def run() -> Any:
        nonlocal state
        *rest, loss = compiled(*state, x, y)
        state = tuple(rest)
        return loss.block_until_ready()

    return run

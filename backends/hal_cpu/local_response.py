"""Local response normalization in NumPy: the neighbours along the channels are slices of a block in the cache."""

from __future__ import annotations

from math import prod

import numpy as np

from hal import ops
from hal.plugin import Array
from hal_cpu.normalization import converted, over_blocks
from hal_cpu.parallel import scratch
from hal_cpu.precision import working
from hal_cpu.table import kernels


def _near(x: Array, below: int, above: int, out: Array) -> None:
    """For each channel the sum of those from `below` before it to `above` after it, of a block (n, C, places)."""
    channels = x.shape[1]
    np.copyto(out, x)
    for shift in range(1, max(below, above) + 1):
        if shift <= below and shift < channels:
            out[:, shift:] += x[:, :-shift]
        if shift <= above and shift < channels:
            out[:, :-shift] += x[:, shift:]


def _power(base: Array, beta: float, out: Array) -> None:
    """base ** -beta; the usual exponents without the slow general power."""
    if beta in (0.5, 0.75):
        np.sqrt(base, out=out)
        if beta == 0.75:
            root = scratch("response root", out.shape, out.dtype)
            np.sqrt(out, out=root)
            out *= root
        np.reciprocal(out, out=out)
    elif beta == 1:
        np.reciprocal(base, out=out)
    else:
        np.power(base, -beta, out=out)


def _base(x: Array, size: int, alpha: float, k: float, spare: Array, out: Array) -> None:
    np.multiply(x, x, out=spare)
    _near(spare, size // 2, (size - 1) // 2, out)
    out *= alpha / size
    out += k


def _samples(x: Array) -> Array:
    return x.reshape(x.shape[0], x.shape[1], prod(x.shape[2:]))


@kernels.register(ops.local_response_norm, out=True)
def local_response_norm(x: Array, *, size: int, alpha: float, beta: float, k: float, out: Array | None = None) -> Array:
    """x / (k + alpha * mean of neighbouring squares) ** beta."""
    kind = working(x.dtype)
    result = np.empty(x.shape, x.dtype) if out is None or not out.flags.c_contiguous else out
    samples, flat = _samples(x), _samples(result)

    def block(low: int, high: int) -> None:
        given = converted("response input", samples[low:high], kind)
        spare, base = (scratch(f"response {i}", given.shape, kind) for i in range(2))
        _base(given, size, alpha, k, spare, base)
        _power(base, beta, spare)
        np.multiply(given, spare, out=flat[low:high], casting="unsafe")

    over_blocks(block, len(x), samples.shape[1] * samples.shape[2], size + 12)
    return _given(result, out)


@kernels.register(ops.local_response_norm_gradient, out=True)
def local_response_norm_gradient(
    g: Array, x: Array, *, size: int, alpha: float, beta: float, k: float, out: Array | None = None
) -> Array:
    """The gradient of local_response_norm."""
    kind = working(x.dtype)
    result = np.empty(x.shape, x.dtype) if out is None or not out.flags.c_contiguous else out
    samples, incoming, flat = _samples(x), _samples(g), _samples(result)

    def block(low: int, high: int) -> None:
        given = converted("response input", samples[low:high], kind)
        grad = converted("response gradient", incoming[low:high], kind)
        spare, base, scale = (scratch(f"response {i}", given.shape, kind) for i in range(3))
        _base(given, size, alpha, k, spare, base)
        _power(base, beta, scale)
        np.multiply(grad, scale, out=scale)
        np.divide(scale, base, out=spare)
        spare *= given
        _near(spare, (size - 1) // 2, size // 2, base)
        base *= given
        base *= 2 * alpha * beta / size
        np.subtract(scale, base, out=flat[low:high], casting="unsafe")

    over_blocks(block, len(x), samples.shape[1] * samples.shape[2], 2 * size + 24)
    return _given(result, out)


def _given(result: Array, out: Array | None) -> Array:
    if out is None or result is out:
        return result
    np.copyto(out, result)
    return out

"""gelu and its derivative, by the error function and by tanh: each for itself, and both at once with the same bits."""

from __future__ import annotations

from math import pi, sqrt

import numpy as np

from hal import ops
from hal.ops.activations import CUBE, FLAT, LINE
from hal.plugin import Array
from hal_cpu.activations import END_OF_ERFC, clamp, horner, scaled_erfc
from hal_cpu.blocks import constant, in_blocks
from hal_cpu.table import kernels

# Of gelu, what belongs to the size a of x: the normal distribution beyond a is exp(-a * a / 2) m(a). In float32 m is
# t times a polynomial in t = 1 / (1 + a / sqrt(8)): relative error 2**-24.5, by a weighted fit at Chebyshev's points;
# in three fifths of the steps that the polynomial of erfc takes, which is a little more accurate.
_BEYOND = tuple(np.array(c, np.float32) for c in (
    -0.02954883, 0.142357665, -0.243745675, 0.139200815, -0.013428435, 0.101392535, 0.12153942, 0.141189375, 0.14104311,
))  # fmt: skip


def share_beyond(size: Array, out: Array, t: Array) -> None:
    """exp(a * a / 2) times the normal distribution's share beyond a = size; `size` must not be negative."""
    if size.dtype != np.float32:
        scaled_erfc(size, sqrt(2), out, t)
        np.multiply(out, 0.5, out=out)
        return
    np.multiply(size, 8**-0.5, out=t)
    np.add(t, 1, out=t)
    np.divide(1, t, out=t)
    horner(t, _BEYOND, out)
    np.multiply(out, t, out=out)


def gauss(size: Array, out: Array) -> None:
    """exp(-size * size / 2)."""
    np.multiply(size, size, out=out)
    np.multiply(out, -0.5, out=out)
    np.exp(out, out=out)


def gelu_by_tanh(x: Array, out: Array, t: Array) -> None:
    """x / (1 + exp(-2 z)), which is x (1 + tanh(z)) / 2."""
    np.multiply(x, x, out=t)
    np.multiply(t, -LINE * CUBE, out=t)
    np.subtract(t, LINE, out=t)
    np.multiply(t, x, out=t)
    np.exp(t, out=t)
    np.add(t, 1, out=t)
    np.divide(x, t, out=out)


@kernels.register(ops.gelu, out=True)
@in_blocks(3, work=16)
def gelu(x: Array, out: Array, size: Array, share: Array, t: Array, *, approximate: str) -> None:
    if approximate == "tanh":
        gelu_by_tanh(x, out, t)
        return
    # x is multiplied by the share beyond |x| below zero, by 1 - share above: max(x, 0) - |x| share.
    np.minimum(x, constant(1.5 * END_OF_ERFC[x.dtype], x), out=size)  # finite, so that inf - inf * 0 is inf
    np.absolute(size, out=size)
    share_beyond(size, share, t)
    np.multiply(share, size, out=share)
    gauss(size, t)
    np.multiply(share, t, out=share)
    np.maximum(x, constant(0, x), out=out)
    np.subtract(out, share, out=out)


@kernels.register(ops.gelu_with_slope, out=True)
@in_blocks(3, work=26, results=2)
def gelu_with_slope(
    x: Array, out: Array, slope: Array, size: Array, share: Array, t: Array, *, approximate: str
) -> None:
    """Both at once, with the bits that they have one by one: what belongs to the size of x is computed once."""
    if approximate == "tanh":
        clamp(x, -FLAT, FLAT, size)
        _slope_by_tanh(size, slope, share, t)
        gelu_by_tanh(x, out, t)
        return
    end = constant(1.5 * END_OF_ERFC[x.dtype], x)
    np.minimum(x, end, out=size)
    np.absolute(size, out=size)
    np.minimum(size, end, out=slope)
    share_beyond(slope, share, t)
    gauss(slope, t)
    np.multiply(slope, 1 / sqrt(2 * pi), out=slope)
    np.subtract(share, slope, out=slope)
    np.multiply(slope, t, out=slope)
    np.subtract(0.5, slope, out=slope)
    np.copysign(slope, x, out=slope)
    np.add(slope, 0.5, out=slope)
    np.multiply(share, size, out=share)
    np.multiply(share, t, out=share)
    np.maximum(x, constant(0, x), out=out)
    np.subtract(out, share, out=out)


@kernels.register(ops.gelu_slope, out=True)
@in_blocks(3, work=18)
def gelu_slope(x: Array, out: Array, size: Array, s: Array, t: Array, *, approximate: str) -> None:
    if approximate == "tanh":
        clamp(x, -FLAT, FLAT, size)
        _slope_by_tanh(size, out, s, t)
        return
    # With a = |x| and r = exp(-a * a / 2) * (m(a) - a / sqrt(2 pi)): r below zero, 1 - r above.
    np.absolute(x, out=size)
    np.minimum(size, constant(1.5 * END_OF_ERFC[x.dtype], x), out=size)
    share_beyond(size, s, t)
    np.multiply(size, 1 / sqrt(2 * pi), out=t)
    np.subtract(s, t, out=s)
    gauss(size, t)
    np.multiply(s, t, out=s)
    np.subtract(0.5, s, out=s)
    np.copysign(s, x, out=s)
    np.add(s, 0.5, out=out)


def _slope_by_tanh(x: Array, out: Array, s: Array, t: Array) -> None:
    """s + x s (1 - s) z', where s is sigmoid(z)."""
    np.multiply(x, x, out=t)
    np.multiply(t, -LINE * CUBE, out=s)
    np.subtract(s, LINE, out=s)
    np.multiply(s, x, out=s)
    np.exp(s, out=s)
    np.add(s, 1, out=s)
    np.divide(1, s, out=s)
    np.multiply(t, 3 * LINE * CUBE, out=t)
    np.add(t, LINE, out=t)
    np.multiply(t, x, out=t)
    np.subtract(1, s, out=out)
    np.multiply(out, t, out=out)
    np.add(out, 1, out=out)
    np.multiply(out, s, out=out)

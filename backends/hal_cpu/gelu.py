"""gelu and its derivative, by the error function and by tanh: each for itself, and both at once with the same bits."""

from __future__ import annotations

from math import pi, sqrt

import numpy as np

from hal import ops
from hal.ops.activations import CUBE, FLAT, LINE
from hal.plugin import Array
from hal_cpu.activations import END_OF_ERFC, clamp, scaled_erfc
from hal_cpu.blocks import constant, copy_sign, in_blocks
from hal_cpu.table import kernels

# Of gelu, what belongs to the size a of x: the normal distribution beyond a is exp(-a * a / 2) m(a), m being Mills'
# ratio by sqrt(2 pi). In float32 m(a) = c / (a + s), where s is a continued fraction of two more such levels and one
# last sum: 11 steps instead of the 27 of erfc. By a weighted rational fit of degrees 3 and 4, the relative error is
# below 2**-24 (1 + a * a / 2): the second term is what a rounding of x makes of the result.
_OVER = tuple(np.array(c, np.float32) for c in (17.302944, -10.451897, 1.2363791, 0.3988169))
_ADDED = tuple(np.array(c, np.float32) for c in (1.3313866, 4.032823, 2.1391242, -0.012918374))


def share_beyond(size: Array, out: Array, t: Array) -> None:
    """exp(a * a / 2) times the normal distribution's share beyond a = size; `size` must not be negative."""
    if size.dtype != np.float32:
        scaled_erfc(size, sqrt(2), out, t)
        np.multiply(out, 0.5, out=out)
        return
    np.add(size, _ADDED[0], out=out)
    for over, added in zip(_OVER, _ADDED[1:], strict=False):
        np.divide(over, out, out=out)
        np.add(out, size, out=out)
        np.add(out, added, out=out)
    np.divide(_OVER[-1], out, out=out)


def gauss(size: Array, out: Array) -> None:
    """exp(-size * size / 2)."""
    np.square(size, out=out)
    np.multiply(out, -0.5, out=out)
    np.exp(out, out=out)


def falling(size: Array, share: Array, density: Array, out: Array) -> None:
    """The derivative at -size: exp(-size * size / 2) * (m(size) - size / sqrt(2 pi)); `size` may be `out`."""
    np.multiply(size, 1 / sqrt(2 * pi), out=out)
    np.subtract(share, out, out=out)
    np.multiply(out, density, out=out)


def on_both_sides(x: Array, slope: Array, t: Array, out: Array) -> None:
    """`slope`, the derivative at -|x|, where x is negative, 1 - slope where it is not; `slope` is used up."""
    np.subtract(0.5, slope, out=slope)
    copy_sign(x, slope, t)
    np.add(slope, 0.5, out=out)


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
    falling(slope, share, t, slope)
    np.multiply(share, size, out=share)
    np.multiply(share, t, out=share)
    on_both_sides(x, slope, t, slope)
    np.maximum(x, constant(0, x), out=out)
    np.subtract(out, share, out=out)


@kernels.register(ops.gelu_slope, out=True)
@in_blocks(3, work=18)
def gelu_slope(x: Array, out: Array, size: Array, s: Array, t: Array, *, approximate: str) -> None:
    if approximate == "tanh":
        clamp(x, -FLAT, FLAT, size)
        _slope_by_tanh(size, out, s, t)
        return
    np.absolute(x, out=size)
    np.minimum(size, constant(1.5 * END_OF_ERFC[x.dtype], x), out=size)
    share_beyond(size, s, t)
    gauss(size, t)
    falling(size, s, t, size)
    on_both_sides(x, size, t, out)


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

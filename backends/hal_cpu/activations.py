"""Activation functions and the error function, each a short formula that runs in blocks.

Where a formula has two branches, it clamps and adds if it can: NumPy's maximum costs a twentieth of its where.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hal import ops
from hal.ops.activations import SELU_ALPHA, SELU_SCALE
from hal.ops.special import ERF, ERFC, ERFC_ZERO
from hal.plugin import Array, Spec
from hal_cpu.blocks import SMALL, constant, copy_sign, in_blocks, select
from hal_cpu.quiet import silent
from hal_cpu.table import kernels


def of_floats(x: Spec, *rest: Spec, **settings: Any) -> bool:
    """Whether the elements are floating-point numbers."""
    return x.dtype.kind == "float"


# Clamped ones.


def clamp(x: Array, low: float | None, high: float | None, out: Array) -> None:
    """`x` between bounds; NaN stays."""
    if low is not None:
        x = np.maximum(x, constant(low, x), out=out)
    if high is not None:
        x = np.minimum(x, constant(high, x), out=out)
    if x is not out:
        np.copyto(out, x)


@kernels.register(ops.relu, out=True)
@in_blocks(0, work=1)
def relu(x: Array, out: Array) -> None:
    np.maximum(x, constant(0, x), out=out)


@kernels.register(ops.relu, when=lambda x: x.size <= SMALL and x.dtype.itemsize > 2, out=True)
@silent
def relu_of_few(x: Array, out: Array | None = None) -> Array:
    return np.maximum(x, _ZEROS[x.dtype.char], out=out)


_ZEROS = {code: np.zeros((), code) for code in np.typecodes["AllInteger"] + "fd"}  # dtypes are slow as keys


@kernels.register(ops.relu6, out=True)
@in_blocks(0, work=2)
def relu6(x: Array, out: Array) -> None:
    clamp(x, 0, 6, out)


@kernels.register(ops.clip, when=of_floats, out=True)
@kernels.register(ops.hardtanh, out=True)
@in_blocks(0, work=2)
def clip(x: Array, out: Array, *, low: float | None, high: float | None) -> None:
    clamp(x, low, high, out)


def ramp(x: Array, out: Array) -> None:
    """From 0 at -3 to 1 at 3."""
    np.add(x, 3, out=out)
    clamp(out, 0, 6, out)
    np.multiply(out, 1 / 6, out=out)


kernels.register(ops.hardsigmoid, out=True)(in_blocks(0, work=3)(ramp))


@kernels.register(ops.hardswish, out=True)
@in_blocks(1, work=4)
def hardswish(x: Array, out: Array, t: Array) -> None:
    ramp(x, t)
    np.multiply(x, t, out=out)


@kernels.register(ops.softshrink, out=True)
@in_blocks(1, work=3)
def softshrink(x: Array, out: Array, t: Array, *, lambd: float) -> None:
    clamp(x, -lambd, lambd, t)
    np.subtract(x, t, out=out)


@kernels.register(ops.leaky_relu, when=lambda x, *, negative_slope: 0 < negative_slope <= 1, out=True)
@in_blocks(1, work=2)
def leaky_relu(x: Array, out: Array, t: Array, *, negative_slope: float) -> None:
    np.multiply(x, negative_slope, out=t)
    np.maximum(x, t, out=out)


# Exponential below zero.


def exponential_below(x: Array, out: Array, t: Array, inner: float, below: float, above: float) -> None:
    """`above * x` over zero, `below * expm1(x * inner)` under it."""
    np.minimum(x, constant(0, x), out=t)
    if inner != 1:
        np.multiply(t, inner, out=t)
    np.expm1(t, out=t)
    if below != 1:
        np.multiply(t, below, out=t)
    np.maximum(x, constant(0, x), out=out)
    if above != 1:
        np.multiply(out, above, out=out)
    np.add(out, t, out=out)


@kernels.register(ops.elu, out=True)
@in_blocks(1, work=4)
def elu(x: Array, out: Array, t: Array, *, alpha: float) -> None:
    exponential_below(x, out, t, 1, alpha, 1)


@kernels.register(ops.celu, out=True)
@in_blocks(1, work=5)
def celu(x: Array, out: Array, t: Array, *, alpha: float) -> None:
    exponential_below(x, out, t, 1 / alpha, alpha, 1)


@kernels.register(ops.selu, out=True)
@in_blocks(1, work=5)
def selu(x: Array, out: Array, t: Array) -> None:
    exponential_below(x, out, t, 1, SELU_SCALE * SELU_ALPHA, SELU_SCALE)


# Smooth ones.


@kernels.register(ops.sigmoid, out=True)
@in_blocks(0, work=4)
def sigmoid(x: Array, out: Array) -> None:
    np.negative(x, out=out)
    np.exp(out, out=out)
    np.add(out, 1, out=out)
    np.divide(1, out, out=out)  # half the time of NumPy's reciprocal (measured, NumPy 2.4)


@kernels.register(ops.silu, out=True)
@in_blocks(1, work=4)
def silu(x: Array, out: Array, t: Array) -> None:
    np.negative(x, out=t)
    np.exp(t, out=t)
    np.add(t, 1, out=t)
    np.divide(x, t, out=out)


def log1p_exp_of_minus_size(x: Array, out: Array) -> None:
    np.absolute(x, out=out)
    np.negative(out, out=out)
    np.exp(out, out=out)
    np.log1p(out, out=out)


@kernels.register(ops.log_sigmoid, out=True)
@in_blocks(1, work=6)
def log_sigmoid(x: Array, out: Array, t: Array) -> None:
    log1p_exp_of_minus_size(x, t)
    np.minimum(x, constant(0, x), out=out)
    np.subtract(out, t, out=out)


@kernels.register(ops.softplus, out=True)
@in_blocks(2, work=8)
def softplus(x: Array, out: Array, t: Array, z: Array, *, beta: float, threshold: float) -> None:
    np.multiply(x, beta, out=z)
    log1p_exp_of_minus_size(z, t)
    straight = z > threshold
    np.maximum(z, constant(0, z), out=z)
    np.add(t, z, out=t)
    if beta != 1:
        np.multiply(t, 1 / beta, out=t)
    if straight.any():
        np.copyto(t, x, where=straight)
    np.copyto(out, t)


@kernels.register(ops.mish, out=True)
@in_blocks(2, work=6)
def mish(x: Array, out: Array, n: Array, t: Array) -> None:
    np.minimum(x, constant(20, x), out=t)
    np.exp(t, out=t)
    np.add(t, 2, out=n)
    np.multiply(n, t, out=n)
    np.add(n, 2, out=t)
    np.divide(n, t, out=t)
    np.multiply(x, t, out=out)


@kernels.register(ops.softsign, out=True)
@in_blocks(1, work=2)
def softsign(x: Array, out: Array, t: Array) -> None:
    np.absolute(x, out=t)
    np.add(t, 1, out=t)
    np.divide(x, t, out=out)


@kernels.register(ops.tanhshrink, out=True)
@in_blocks(1, work=3)
def tanhshrink(x: Array, out: Array, t: Array) -> None:
    np.tanh(x, out=t)
    np.subtract(x, t, out=out)


@kernels.register(ops.glu, out=True)
def glu(x: Array, out: Array | None = None, *, axis: int) -> Array:
    a, b = np.split(x, 2, axis=axis)
    t = np.exp(np.negative(b))
    np.add(t, 1, out=t)
    return np.divide(a, t, out=out)


# The error function, by the polynomials that its decomposition uses.

_ERF, _ERFC = (
    {d.numpy: tuple(np.array(c, d.numpy) for c in coefficients) for d, coefficients in table.items()}
    for table in (ERF, ERFC)
)
END_OF_ERFC = {d.numpy: end for d, end in ERFC_ZERO.items()}


def horner(x: Array, coefficients: tuple[Array, ...], out: Array) -> None:
    """The polynomial with these coefficients, highest power first."""
    np.multiply(x, coefficients[0], out=out)
    for c in coefficients[1:-1]:
        np.add(out, c, out=out)
        np.multiply(out, x, out=out)
    np.add(out, coefficients[-1], out=out)


def scaled_erfc(size: Array, unit: float, out: Array, t: Array) -> None:
    """exp(z * z) erfc(z) of z = size / unit; `size` must not be negative, nor beyond where erfc is zero."""
    np.subtract(size, 3 * unit, out=t)
    np.add(size, 3 * unit, out=out)
    np.divide(t, out, out=t)
    horner(t, _ERFC[size.dtype], out)
    np.multiply(size, 2 / unit, out=t)
    np.add(t, 1, out=t)
    np.divide(out, t, out=out)


def erfc_of_size(size: Array, out: Array, t: Array, u: Array) -> None:
    """erfc of numbers that are not negative."""
    clamp(size, None, END_OF_ERFC[size.dtype], size)
    scaled_erfc(size, 1, out, t)
    # exp(-x * x) would carry the rounding of x * x, so x is cut: the square of the front has no rounding.
    np.multiply(size, 16, out=t)
    np.floor(t, out=t)
    np.multiply(t, 1 / 16, out=t)
    np.subtract(t, size, out=u)
    np.add(size, t, out=size)
    np.multiply(u, size, out=u)
    np.exp(u, out=u)
    np.multiply(out, u, out=out)
    np.multiply(t, t, out=t)
    np.negative(t, out=t)
    np.exp(t, out=t)
    np.multiply(out, t, out=out)


@kernels.register(ops.erfc, out=True)
@in_blocks(4, work=25)
def erfc(x: Array, out: Array, size: Array, t: Array, u: Array, y: Array) -> None:
    np.absolute(x, out=size)
    erfc_of_size(size, y, t, u)
    np.copysign(constant(1, x), x, out=t)  # below zero 2 - y, which is -y + (1 - -1)
    np.multiply(y, t, out=y)
    np.subtract(1, t, out=t)
    np.add(y, t, out=out)


@kernels.register(ops.erf, out=True)
@in_blocks(4, work=32)
def erf(x: Array, out: Array, size: Array, t: Array, u: Array, far: Array) -> None:
    np.absolute(x, out=size)
    near = size < 1
    erfc_of_size(size, far, t, u)
    np.subtract(1, far, out=far)
    copy_sign(x, far, t)
    np.multiply(x, x, out=t)
    horner(t, _ERF[x.dtype], u)
    np.multiply(u, x, out=u)
    bits = np.dtype(f"u{x.dtype.itemsize}")
    select(near, u, far, out, size.view(bits), t.view(bits))

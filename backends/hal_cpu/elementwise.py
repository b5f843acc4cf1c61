"""Elementwise kernels: NumPy's own functions, and short formulas for what NumPy does not have."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hal import ops
from hal.plugin import Array, Spec
from hal_cpu.blocks import BLOCK, Formula, flat, in_blocks, select
from hal_cpu.parallel import scratch
from hal_cpu.quiet import quiet
from hal_cpu.table import kernels

_LN2 = np.array(math.log(2), np.float32)

# fmt: off
UFUNCS = {
    ops.add: np.add, ops.sub: np.subtract, ops.mul: np.multiply, ops.div: np.true_divide, ops.neg: np.negative,
    ops.floor_divide: np.floor_divide, ops.remainder: np.remainder, ops.fmod: np.fmod,
    ops.abs: np.absolute, ops.sign: np.sign, ops.square: np.square, ops.reciprocal: np.reciprocal,
    ops.sqrt: np.sqrt, ops.hypot: np.hypot,
    ops.exp: np.exp, ops.exp2: np.exp2, ops.expm1: np.expm1, ops.logaddexp: np.logaddexp,
    ops.log: np.log, ops.log2: np.log2, ops.log10: np.log10, ops.log1p: np.log1p,
    ops.sin: np.sin, ops.cos: np.cos, ops.tan: np.tan,
    ops.asin: np.arcsin, ops.acos: np.arccos, ops.atan: np.arctan, ops.atan2: np.arctan2,
    ops.sinh: np.sinh, ops.cosh: np.cosh, ops.tanh: np.tanh,
    ops.asinh: np.arcsinh, ops.acosh: np.arccosh, ops.atanh: np.arctanh,
    ops.floor: np.floor, ops.ceil: np.ceil, ops.trunc: np.trunc, ops.round: np.rint,
    ops.isnan: np.isnan, ops.isinf: np.isinf, ops.isfinite: np.isfinite,
    ops.signbit: np.signbit, ops.copysign: np.copysign, ops.nextafter: np.nextafter,
    ops.maximum: np.maximum, ops.minimum: np.minimum,
    ops.less: np.less, ops.less_equal: np.less_equal, ops.greater: np.greater, ops.greater_equal: np.greater_equal,
    ops.equal: np.equal, ops.not_equal: np.not_equal,
    ops.logical_and: np.logical_and, ops.logical_or: np.logical_or, ops.logical_xor: np.logical_xor,
    ops.logical_not: np.logical_not,
    ops.bitwise_and: np.bitwise_and, ops.bitwise_or: np.bitwise_or, ops.bitwise_xor: np.bitwise_xor,
    ops.bitwise_invert: np.invert, ops.bitwise_left_shift: np.left_shift, ops.bitwise_right_shift: np.right_shift,
}
# fmt: on
for _op, _ufunc in UFUNCS.items():
    kernels.register(_op, out=True)(_ufunc)


def of_integers(x: Spec, *rest: Spec, **settings: Any) -> bool:
    """Whether the elements are integers."""
    return x.dtype.kind in ("int", "uint")


def of_complex(x: Spec, *rest: Spec, **settings: Any) -> bool:
    """Whether the elements are complex."""
    return x.dtype.kind == "complex"


def on_threads(x: Spec, **settings: Any) -> bool:
    """Whether the elements are real and so many that a second thread pays."""
    return x.dtype.kind == "float" and x.size >= 1 << 19


def formula_of(ufunc: np.ufunc) -> Formula:
    """`ufunc` as a formula of one step."""
    return lambda x, out: ufunc(x, out=out)


for _op in (ops.exp, ops.exp2, ops.expm1, ops.log, ops.log2, ops.log1p, ops.sin, ops.cos, ops.tan, ops.sinh, ops.cosh,
            ops.tanh, ops.asin, ops.acos, ops.atan, ops.asinh, ops.acosh, ops.atanh):  # fmt: skip
    kernels.register(_op, when=on_threads, out=True)(in_blocks(0, work=2)(formula_of(UFUNCS[_op])))


for _op in (ops.floor_divide, ops.remainder, ops.fmod):  # division by zero warns, as for floats
    kernels.register(_op, when=of_integers, out=True)(quiet(UFUNCS[_op]))
for _op in (ops.floor, ops.ceil, ops.trunc, ops.round):  # which NumPy before 2.1 makes floats of
    kernels.register(_op, when=of_integers, out=True)(np.positive)
kernels.register(ops.conj, when=of_complex, out=True)(np.conjugate)


@kernels.register(ops.real, when=of_complex, out=True)
def real(x: Array, out: Array | None = None) -> Array:
    return np.positive(x.real, out=out)


@kernels.register(ops.imag, when=of_complex, out=True)
def imag(x: Array, out: Array | None = None) -> Array:
    return np.positive(x.imag, out=out)


@kernels.register(ops.pow, out=True)
def power(a: Array, b: Array, out: Array | None = None) -> Array:
    if b.ndim == 0 and b == 2:  # much the most frequent, and 20 times faster
        return np.square(a, out=out)
    return np.power(a, b, out=out)


def of_float32(x: Spec, *rest: Spec, **settings: Any) -> bool:
    """Whether the elements are float32."""
    return x.dtype.name == "float32"


# Of NumPy 2.4's float32 logarithms, log is wrong by up to 3.8 and log10 by up to 3.5 ULP, log2 by 2.1 (measured).


@kernels.register(ops.log, when=of_float32, out=True)
@in_blocks(0, work=2)
def log(x: Array, out: Array) -> None:
    np.log2(x, out=out)
    np.multiply(out, _LN2, out=out)


@kernels.register(ops.log10, when=of_float32, out=True)
def log10(x: Array, out: Array | None = None) -> Array:
    out = np.empty_like(x) if out is None else out
    return np.log10(x, out=out, dtype=np.float64, casting="same_kind")


@kernels.register(ops.rsqrt, out=True)
@in_blocks(0, work=3)
def rsqrt(x: Array, out: Array) -> None:
    np.sqrt(x, out=out)
    np.divide(1, out, out=out)  # half the time of NumPy's reciprocal (measured, NumPy 2.4)


# Choosing.


def _flat(condition: Array, a: Array, b: Array, out: Array) -> tuple[Array, ...] | None:
    """All of them one-dimensional, numbers stretched to a block, if what belongs together lies at the same place."""
    full = [x for x in (condition, a, b, out) if x.ndim or x is condition]
    views = flat(*full) if all(x.shape == condition.shape for x in full) else None
    if views is None:
        return None
    found = iter(views)
    return tuple(np.broadcast_to(x, BLOCK) if x.ndim == 0 else next(found) for x in (condition, a, b, out))


@kernels.register(ops.where, out=True)
def where(condition: Array, a: Array, b: Array, out: Array | None = None) -> Array:
    if a.dtype.itemsize > 8:
        return _chosen(condition, a, b, out)
    if b.ndim == 0 and a.shape == condition.shape and not any(b.tobytes()):
        return _or_zero(condition, a, out)
    if condition.size < BLOCK:
        return _chosen(condition, a, b, out)
    result = np.empty_like(condition, a.dtype) if out is None else out
    views = _flat(condition, a, b, result)
    if views is None:
        return _chosen(condition, a, b, out)
    spare, bits = scratch("where", (2, BLOCK), f"u{a.dtype.itemsize}")
    mask, first, second, target = views
    for start in range(0, condition.size, BLOCK):
        stop = min(start + BLOCK, condition.size)
        n = stop - start
        left = first[:n] if a.ndim == 0 else first[start:stop]
        right = second[:n] if b.ndim == 0 else second[start:stop]
        select(mask[start:stop], left, right, target[start:stop], spare[:n], bits[:n])
    return result


def _or_zero(condition: Array, a: Array, out: Array | None) -> Array:
    """`a` where the condition holds, else +0, by bits: what the gradient of relu and dropout is made of."""
    result = np.empty_like(condition, a.dtype) if out is None else out
    views = flat(condition, a, result)
    if views is None:  # the kernels of images keep the order of what is as large as the condition, so it prevails
        copied = np.empty_like(condition, a.dtype)
        np.copyto(copied, a)
        views = flat(condition, copied, result)
    if views is None:
        return _chosen(condition, a, np.zeros((), a.dtype), out)
    mask, given, target = views
    bits = np.dtype(f"u{a.dtype.itemsize}")
    given, target = given.view(bits), target.view(bits)
    ones = scratch("where", (min(BLOCK, mask.size),), bits)
    for start in range(0, mask.size, BLOCK):
        stop = min(start + BLOCK, mask.size)
        kept = ones[: stop - start]
        np.copyto(kept, mask[start:stop])
        np.negative(kept, out=kept)  # all ones where true
        np.bitwise_and(given[start:stop], kept, out=target[start:stop])
    return result


def _chosen(condition: Array, a: Array, b: Array, out: Array | None) -> Array:
    chosen = np.where(condition, a, b)
    if out is None:
        return chosen
    np.copyto(out, chosen)
    return out

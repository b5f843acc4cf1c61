"""What the vector unit does: elementwise functions, reductions, selection and random bits, in its own number formats.

It has float32 and integers. bfloat16 is widened on the way in and rounded once on the way out (see `backend`).
"""

from __future__ import annotations

import math
from math import prod
from typing import Any

import numpy as np

from hal import ops
from hal.ops.random import PARITY, ROTATIONS
from hal.plugin import Array, Spec
from hal_systolic.table import kernels

Axes = int | tuple[int, ...] | None

# fmt: off
UFUNCS = {
    ops.add: np.add, ops.sub: np.subtract, ops.mul: np.multiply, ops.div: np.true_divide, ops.neg: np.negative,
    ops.floor_divide: np.floor_divide, ops.remainder: np.remainder, ops.fmod: np.fmod, ops.pow: np.power,
    ops.abs: np.absolute, ops.sign: np.sign, ops.square: np.square, ops.reciprocal: np.reciprocal, ops.sqrt: np.sqrt,
    ops.exp: np.exp, ops.expm1: np.expm1, ops.log1p: np.log1p, ops.log2: np.log2, ops.sin: np.sin, ops.cos: np.cos,
    ops.tanh: np.tanh,
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


def of_floats(x: Spec, *rest: Spec, **settings: Any) -> bool:
    """Whether the elements are floating."""
    return x.dtype.is_floating


_LN2 = np.float32(math.log(2))


@kernels.register(ops.log, when=of_floats)
def log(x: Array) -> Array:
    """By way of the logarithm to base 2: NumPy's natural one is off by more than the record allows."""
    return np.asarray(np.log2(x) * _LN2)


@kernels.register(ops.where)
def where(condition: Array, a: Array, b: Array) -> Array:
    """`a` where the condition holds, else `b`."""
    return np.where(condition, a, b)


@kernels.register(ops.relu, out=True)
def relu(x: Array, out: Array | None = None) -> Array:
    """The larger of `x` and zero."""
    return np.maximum(x, x.dtype.type(0), out=out)


@kernels.register(ops.sum)
def sum_(x: Array, *, axis: Axes, keepdims: bool) -> Array:
    """The sum, in float64 for floating elements: lanes add in a tree, whose error does not grow with the length."""
    if x.dtype.kind != "f":
        return np.asarray(np.sum(x, axis, keepdims=keepdims))
    return np.asarray(_totals(x, axis, keepdims))


def _totals(x: Array, axis: Axes, keepdims: bool) -> Array:
    """Sums of floating elements: pairwise where NumPy adds so, which is along a contiguous axis."""
    if x.ndim == 2 and axis in (0, (0,)) and x.flags.c_contiguous and x.shape[0] <= 4096:
        total = np.add.reduce(x, 0, dtype=np.float64 if x.shape[0] > 64 else None)
        return total[None] if keepdims else total
    return np.asarray(np.sum(x, axis, dtype=np.float64, keepdims=keepdims))


@kernels.register(ops.max)
def max_(x: Array, *, axis: Axes, keepdims: bool) -> Array:
    """The largest, NaN if there is one."""
    return np.asarray(np.max(x, axis, keepdims=keepdims))


@kernels.register(ops.take)
def take(x: Array, indices: Array, *, axis: int) -> Array:
    """The elements at `indices` along one axis."""
    return np.take(x, indices, axis)


@kernels.register(ops.index_add)
def index_add(x: Array, indices: Array, updates: Array, *, axis: int) -> Array:
    """`x` with `updates` added at `indices` along one axis."""
    out = x.copy()
    place: Any = (*(slice(None),) * (axis % x.ndim), indices)
    np.add.at(out, place, updates)
    return out


@kernels.register(ops.random_bits)
def random_bits(state: Array, *, shape: tuple[int, ...]) -> Array:
    """Threefry-2x32 with 20 rounds, in 32-bit integers: the words of every other device."""
    size = prod(shape)
    key0, key1, counter0, counter1 = (state[i : i + 1] for i in range(4))
    low = np.arange((size + 1) // 2, dtype=np.uint32) + counter0
    high = counter1 + (low < counter0).astype(np.uint32)
    keys = (key0, key1, key0 ^ key1 ^ np.uint32(PARITY))
    x0, x1 = low + keys[0], high + keys[1]
    for group in range(5):
        for bits in ROTATIONS[group % 2]:
            x0 += x1
            x1 = ((x1 << np.uint32(bits)) | (x1 >> np.uint32(32 - bits))) ^ x0
        x0 += keys[(group + 1) % 3]
        x1 += keys[(group + 2) % 3] + np.uint32(group + 1)
    return np.stack((x0, x1), axis=1).reshape(-1)[:size].reshape(shape)

"""Movement and creation: views where addresses can be computed, copies where data has to be written anew."""

from __future__ import annotations

import numpy as np

from hal import ops
from hal.ops.movement import python_slices
from hal.plugin import Array, Device, DType
from hal_systolic.table import kernels

Shape = tuple[int, ...]


@kernels.register(ops.reshape)
def reshape(x: Array, *, shape: Shape) -> Array:
    """The same elements in another shape."""
    return x.reshape(shape)


@kernels.register(ops.permute)
def permute(x: Array, *, axes: Shape) -> Array:
    """The same elements with their axes in another order."""
    return x.transpose(axes)


@kernels.register(ops.broadcast_to)
def broadcast_to(x: Array, *, shape: Shape) -> Array:
    """The same elements, repeated by strides of zero."""
    return np.broadcast_to(x, shape)


@kernels.register(ops.slice)
def slice_(x: Array, *, start: Shape, stop: Shape, step: Shape) -> Array:
    """Every step-th element from start on, along each axis."""
    return x[python_slices(start, stop, step)]


@kernels.register(ops.pad)
def pad(x: Array, *, padding: tuple[tuple[int, int], ...], value: float) -> Array:
    """`x` with `value` around it."""
    out = np.full([low + n + high for n, (low, high) in zip(x.shape, padding, strict=True)], value, x.dtype)
    out[tuple(slice(low, low + n) for n, (low, _) in zip(x.shape, padding, strict=True))] = x
    return out


@kernels.register(ops.concat)
def concat(*xs: Array, axis: int) -> Array:
    """One after another along an axis."""
    return np.concatenate(xs, axis)


@kernels.register(ops.cast)
def cast(x: Array, *, dtype: DType) -> Array:
    """Converted element by element."""
    return x.astype(dtype.numpy)


@kernels.register(ops.iota)
def iota(*, size: int, dtype: DType, device: Device | None = None) -> Array:
    """0, 1, 2, ..."""
    return np.arange(size).astype(dtype.numpy)


@kernels.register(ops.full)
def full(value: Array, *, shape: Shape) -> Array:
    """One value everywhere."""
    return np.full(shape, value, value.dtype)

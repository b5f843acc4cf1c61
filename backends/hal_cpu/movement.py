"""Movement, joining, creation and casts in NumPy: views where NumPy has views, copies for all that is not linked."""

from __future__ import annotations

from math import prod

import numpy as np

from hal import ops
from hal.ops.movement import python_slices
from hal.plugin import Array, Device, DType
from hal_cpu.table import kernels

Axes = int | tuple[int, ...] | None
Shape = tuple[int, ...]


def apart(x: Array, out: Array) -> Array:
    """`x`, or a copy of it if writing into `out` would change it."""
    return x.copy() if np.may_share_memory(x, out) else x


# Views.


@kernels.register(ops.reshape)
def reshape(x: Array, *, shape: Shape) -> Array:
    return x.reshape(shape)


@kernels.register(ops.permute)
def permute(x: Array, *, axes: tuple[int, ...]) -> Array:
    return x.transpose(axes)


@kernels.register(ops.broadcast_to)
def broadcast_to(x: Array, *, shape: Shape) -> Array:
    if prod(shape) == x.size:
        return x.reshape(shape)  # nothing is repeated, so it may be written into
    if not x.flags.c_contiguous:
        return np.broadcast_to(x, shape)
    # What np.broadcast_to ends in, with a tenth of its overhead.
    extra = len(shape) - x.ndim
    strides = [0] * extra
    strides += [0 if n == 1 else s for n, s in zip(x.shape, x.strides, strict=True)]
    view: Array = np.ndarray(shape, x.dtype, x, 0, strides)
    view.flags.writeable = False
    return view


@kernels.register(ops.slice)
def slice_(x: Array, *, start: Shape, stop: Shape, step: Shape) -> Array:
    return x[python_slices(start, stop, step)]


# Copies.


@kernels.register(ops.pad, out=True)
def pad(
    x: Array, *, padding: tuple[tuple[int, int], ...], value: bool | int | float, out: Array | None = None
) -> Array:
    shape = [low + n + high for n, (low, high) in zip(x.shape, padding, strict=True)]
    if out is not None:
        x = apart(x, out)
        out.fill(value)
    elif value == 0:
        out = np.zeros(shape, x.dtype)
    else:
        out = np.empty(shape, x.dtype)
        out.fill(value)
    out[tuple(np.s_[low : low + n] for n, (low, _) in zip(x.shape, padding, strict=True))] = x
    return out


@kernels.register(ops.concat, out=True)
def concat(*xs: Array, axis: int, out: Array | None = None) -> Array:
    if out is not None:
        return np.concatenate([apart(x, out) for x in xs], axis, out)
    return np.concatenate(xs, axis)


@kernels.register(ops.stack, out=True)
def stack(*xs: Array, axis: int, out: Array | None = None) -> Array:
    along = axis % (xs[0].ndim + 1)
    shape = (*xs[0].shape[:along], 1, *xs[0].shape[along:])
    return concat(*[x.reshape(shape) for x in xs], axis=along, out=out)


@kernels.register(ops.flip)
def flip(x: Array, *, axis: Axes) -> Array:
    return np.flip(x, axis).copy()


@kernels.register(ops.roll)
def roll(x: Array, *, shift: int | tuple[int, ...], axis: Axes) -> Array:
    return np.roll(x, shift, axis)


@kernels.register(ops.tile)
def tile(x: Array, *, repeats: tuple[int, ...]) -> Array:
    return np.tile(x, repeats)


@kernels.register(ops.repeat)
def repeat(x: Array, *, repeats: int, axis: int) -> Array:
    return x.repeat(repeats, axis)


@kernels.register(ops.tril)
def tril(x: Array, *, diagonal: int) -> Array:
    return np.tril(x, diagonal)


@kernels.register(ops.triu)
def triu(x: Array, *, diagonal: int) -> Array:
    return np.triu(x, diagonal)


@kernels.register(ops.cast, out=True)
def cast(x: Array, *, dtype: DType, out: Array | None = None) -> Array:
    if out is None:
        return x.astype(dtype.numpy)
    np.copyto(out, x, casting="unsafe")
    return out


# Creation.


@kernels.register(ops.full, out=True)
def full(value: Array, *, shape: Shape, out: Array | None = None) -> Array:
    if out is None:
        out = np.empty(shape, value.dtype)
    out.fill(value[()])
    return out


@kernels.register(ops.iota)
def iota(*, size: int, dtype: DType, device: Device | None = None) -> Array:
    return np.arange(size, dtype=dtype.numpy if dtype.itemsize > 2 else np.int64).astype(dtype.numpy, copy=False)

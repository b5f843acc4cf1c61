"""Movement: views wherever strides can say it, and copies of what they cannot."""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any

import numpy as np

from hal import ops
from hal.codegen.expressions import literal, memory_type, stored, value_type
from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.layout import Shape, reshaped, stretched
from hal.codegen.kernels.maps import Map, items_for, loop
from hal.codegen.kernels.runtime import Runtime
from hal.codegen.kernels.table import kernels
from hal.plugin import Device, DType, dtypes


@cache
def _copy(itemsize: int) -> Map:
    bits = dtypes.dtype(f"uint{8 * itemsize}")
    return Map("a copy", (bits,), (bits,), lambda names: ([], names))


@cache
def _fill(value: bool | int | float, dtype: DType) -> Map:
    text = literal(value, dtype)
    return Map(f"fill with {value}", (), (dtype,), lambda names: ([], [text]))


def copy_into(x: Buffer, target: Buffer) -> None:
    """Enqueue a copy of the elements of `x`, which broadcasts to the target's shape, into `target`."""
    runtime = x.memory.runtime
    if x.memory is target.memory and (x.offset, x.strides) != (target.offset, target.strides):
        x = copied(x)  # else elements might be overwritten before they are read
    _copy(x.dtype.itemsize)(runtime, (x.as_bits(),), (target.as_bits(),))


def copied(x: Buffer) -> Buffer:
    """A copy whose elements lie row by row."""
    runtime = x.memory.runtime
    out = runtime.empty(x.shape, x.dtype, "a copy")
    _copy(x.dtype.itemsize)(runtime, (x.as_bits(),), (out.as_bits(),))
    return out


def in_rows(x: Buffer) -> Buffer:
    """`x` itself where its elements lie row by row, else a copy."""
    return x if x.contiguous else copied(x)


def into(result: Buffer, out: Buffer | None) -> Buffer:
    """`result`, or `out` with a copy of it where that is given and is another buffer."""
    if out is None or out is result:
        return result
    copy_into(result, out)
    return out


def filled(runtime: Runtime, out: Buffer, value: bool | int | float) -> None:
    """Enqueue that all elements of `out` become `value`."""
    _fill(value, out.dtype)(runtime, (), (out,))


# Views.


@kernels.register(ops.reshape)
def reshape(x: Buffer, *, shape: Shape) -> Buffer:
    shape = tuple(shape)
    if -1 in shape:
        known = prod(n for n in shape if n != -1)
        shape = tuple(x.size // known if n == -1 else n for n in shape)
    strides = reshaped(x.shape, x.strides, shape)
    if strides is None:
        x = copied(x)
        strides = reshaped(x.shape, x.strides, shape)
        assert strides is not None
    return x.view(shape, strides)


@kernels.register(ops.permute)
def permute(x: Buffer, *, axes: tuple[int, ...]) -> Buffer:
    return x.view(tuple(x.shape[a] for a in axes), tuple(x.strides[a] for a in axes))


@kernels.register(ops.broadcast_to)
def broadcast_to(x: Buffer, *, shape: Shape) -> Buffer:
    return x.view(shape, stretched(x.shape, x.strides, shape))


@kernels.register(ops.slice)
def slice_(x: Buffer, *, start: Shape, stop: Shape, step: Shape) -> Buffer:
    sizes = tuple(len(range(a, b, s)) for a, b, s in zip(start, stop, step, strict=True))
    offset = x.offset
    if 0 not in sizes:
        offset += sum(a * s for a, s in zip(start, x.strides, strict=True))
    return x.view(sizes, tuple(s * by for s, by in zip(x.strides, step, strict=True)), offset)


# Copies.


def _part(x: Buffer, starts: Shape, sizes: Shape) -> Buffer:
    """The block of `x` that begins at `starts`."""
    offset = x.offset + sum(a * s for a, s in zip(starts, x.strides, strict=True))
    return x.view(sizes, x.strides, offset)


def _safe(x: Buffer, out: Buffer | None) -> Buffer:
    """`x`, or a copy of it if writing into `out` would change it."""
    return copied(x) if out is not None and x.memory is out.memory else x


@kernels.register(ops.pad, out=True)
def pad(
    x: Buffer, *, padding: tuple[tuple[int, int], ...], value: bool | int | float = 0, out: Buffer | None = None
) -> Buffer:
    runtime = x.memory.runtime
    x = _safe(x, out)
    shape = tuple(low + n + high for n, (low, high) in zip(x.shape, padding, strict=True))
    result = runtime.empty(shape, x.dtype, "pad") if out is None else out
    filled(runtime, result, x.dtype.numpy.type(value).item() if x.dtype.kind != "bool" else bool(value))
    copy_into(x, _part(result, tuple(low for low, _ in padding), x.shape))
    return result


@kernels.register(ops.concat, out=True)
def concat(*xs: Buffer, axis: int, out: Buffer | None = None) -> Buffer:
    xs = tuple(_safe(x, out) for x in xs)
    rank = len(xs[0].shape)
    axis %= rank
    shape = (*xs[0].shape[:axis], sum(x.shape[axis] for x in xs), *xs[0].shape[axis + 1 :])
    result = xs[0].memory.runtime.empty(shape, xs[0].dtype, "concat") if out is None else out
    at = 0
    for x in xs:
        copy_into(x, _part(result, tuple(at if i == axis else 0 for i in range(rank)), x.shape))
        at += x.shape[axis]
    return result


@kernels.register(ops.stack, out=True)
def stack(*xs: Buffer, axis: int, out: Buffer | None = None) -> Buffer:
    at = axis % (len(xs[0].shape) + 1)
    parts = [x.view((*x.shape[:at], 1, *x.shape[at:]), (*x.strides[:at], 0, *x.strides[at:])) for x in xs]
    return concat(*parts, axis=at, out=out)


@kernels.register(ops.flip)
def flip(x: Buffer, *, axis: Any) -> Buffer:
    rank = len(x.shape)
    axes = range(rank) if axis is None else [a % rank for a in (axis if isinstance(axis, tuple) else (axis,))]
    offset = x.offset + sum((x.shape[a] - 1) * x.strides[a] for a in axes if x.size)
    return copied(x.view(x.shape, tuple(-s if i in axes else s for i, s in enumerate(x.strides)), offset))


@kernels.register(ops.slice_update, out=True)
def slice_update(
    x: Buffer, value: Buffer, *, start: Shape, stop: Shape, step: Shape, out: Buffer | None = None
) -> Buffer:
    if out is None:
        out = copied(x)
    elif out.memory is not x.memory:
        copy_into(x, out)
    target = slice_(out, start=start, stop=stop, step=step)
    copy_into(_safe(value, out), target)
    return out


# Creation.


@kernels.register(ops.full, out=True)
def full(value: Buffer, *, shape: Shape, out: Buffer | None = None) -> Buffer:
    result = value.memory.runtime.empty(shape, value.dtype, "full") if out is None else out
    copy_into(value, result)
    return result


@kernels.register(ops.iota)
def iota(*, size: int, dtype: DType, device: Device) -> Buffer:
    runtime: Runtime = device.backend.runtime  # type: ignore[attr-defined]  # of such a device
    out = runtime.empty((size,), dtype, "iota")
    if size == 0:
        return out
    items, local, per = items_for(runtime, size)
    number = "i != 0" if dtype.kind == "bool" else f"({value_type(dtype)})i"
    source = COUNT.format(type=memory_type(dtype), store=stored("q", "i", number, dtype), loop=loop(runtime.is_cpu))
    kernel = runtime.programs.kernel(source, "count", "iota")
    runtime.launch("iota", kernel, items, local, np.int64(size), np.int64(per), out.memory, writes=(out.memory,))
    return out


COUNT = """HAL_KERNEL count(const i64 n, const i64 per, HAL_GLOBAL {type} *restrict q) {{
    {loop} {{ {store} }}
}}
"""

"""Matrix products: matmul with batches that broadcast, and linear, whatever the strides of their operands."""

from __future__ import annotations

from math import prod

from hal import ops
from hal.codegen.kernels.buffer import Buffer, Shape, row_strides
from hal.codegen.kernels.movement import copy_into, in_rows, into
from hal.codegen.kernels.overlap import overlaps
from hal.codegen.kernels.products import Bias, Factor, Product, Result, Triple
from hal.codegen.kernels.table import kernels
from hal.plugin import DType, Spec, dtypes

HALVES = (dtypes.float16, dtypes.bfloat16)  # products are summed in float32, and rounded once


def cast(buffer: Buffer, dtype: DType) -> Buffer:
    """The elements as another type."""
    kernel = kernels.find(ops.cast, (buffer.spec,), {"dtype": dtype})
    assert kernel is not None
    result: Buffer = kernel.run(buffer, dtype=dtype)
    return result


def delivered(result: Buffer, dtype: DType, out: Buffer | None) -> Buffer:
    """What was computed in another type as `dtype`, in `out` if that is given."""
    return into(result if result.dtype is dtype else cast(result, dtype), out)


def zeros_where(out: Buffer, bias: Buffer | None) -> Buffer:
    """`out` filled with sums of no terms: zero, or the bias of each column."""
    runtime = out.memory.runtime
    if bias is None:
        import numpy as np

        bias = runtime.upload(np.zeros((), out.dtype.numpy), Spec((), out.dtype))
    shape = out.shape
    strides = (0,) * (len(shape) - len(bias.shape)) + bias.strides
    copy_into(bias.view(shape, strides), out)
    return out


def collapsed(shape: Shape, *strides: Shape) -> tuple[Shape, list[Shape]] | None:
    """The axes of a batch as at most three, merged where all operands step evenly; None if more are left."""
    sizes: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for axis, n in enumerate(shape):
        if n == 1:
            continue
        here = [s[axis] for s in strides]
        if sizes and all(mine[-1] == s * n for mine, s in zip(steps, here, strict=True)):
            sizes[-1] *= n
            for mine, s in zip(steps, here, strict=True):
                mine[-1] = s
            continue
        sizes.append(n)
        for mine, s in zip(steps, here, strict=True):
            mine.append(s)
    if len(sizes) > 3:
        return None
    lead = 3 - len(sizes)
    return (1,) * lead + tuple(sizes), [(0,) * lead + tuple(mine) for mine in steps]


def product(label: str, a: Buffer, b: Buffer, bias: Buffer | None, out: Buffer | None) -> Buffer:
    """a @ b (+ bias for each column), for operands of at least two axes and one dtype, which is no half."""
    runtime = a.memory.runtime
    (m, k), n = a.shape[-2:], b.shape[-1]
    batch = _broadcast(a.shape[:-2], b.shape[:-2])
    given = (a, b) if bias is None else (a, b, bias)
    direct = out is not None and out.contiguous and not overlaps(out, given)
    result = out if out is not None and direct else runtime.empty((*batch, m, n), a.dtype, label)
    if result.size == 0:
        return result
    if k == 0:
        return zeros_where(result, bias)
    if len(b.shape) == 2 and len(a.shape) > 2:  # one product instead of a batch, if the rows of `a` are evenly spaced
        flat = collapsed(a.shape[:-1], a.strides[:-1])
        if flat is not None and flat[0][:2] == (1, 1):
            m, batch = prod(a.shape[:-1]), ()
            a = a.view((m, k), (flat[1][0][2], a.strides[-1]))
    steps = [_steps(x, len(batch)) for x in (a, b)]
    found = collapsed(batch, *steps)
    if found is None:
        return (
            product(label, in_rows(a), in_rows(b), bias, out)
            if not (a.contiguous and b.contiguous)
            else _unrolled(label, a, b, bias, result, batch)
        )
    sizes, (of_a, of_b) = found
    work = Product(
        a.dtype,
        Factor(a.memory, a.offset, a.strides[-2], a.strides[-1], _triple(of_a)),
        Factor(b.memory, b.offset, b.strides[-2], b.strides[-1], _triple(of_b)),
        Result(result.memory, result.offset, n, m * n),
        (m, n, k),
        batch=_triple(sizes),
        bias=None if bias is None else Bias(bias.memory, bias.offset, bias.strides[0], 1),
    )
    runtime.multiply(label, work)
    return result


def _unrolled(label: str, a: Buffer, b: Buffer, bias: Buffer | None, result: Buffer, batch: Shape) -> Buffer:
    """A batch whose axes cannot be merged to three: one product for each index of the first."""
    a, b = (x.view((*batch, *x.shape[-2:]), (*_steps(x, len(batch)), *x.strides[-2:])) for x in (a, b))
    for i in range(batch[0]):
        parts = (x.view(x.shape[1:], x.strides[1:], x.offset + i * x.strides[0]) for x in (a, b, result))
        x, y, z = parts
        product(label, x, y, bias, z)
    return result


def _triple(sizes: Shape) -> Triple:
    return sizes


def _broadcast(a: Shape, b: Shape) -> Shape:
    width = max(len(a), len(b))
    a, b = (1,) * (width - len(a)) + a, (1,) * (width - len(b)) + b
    return tuple(y if x == 1 else x for x, y in zip(a, b, strict=True))


def _steps(x: Buffer, axes: int) -> Shape:
    """The strides of a batch of so many axes: 0 where the operand has one matrix for all."""
    own = tuple(0 if n == 1 else s for n, s in zip(x.shape[:-2], x.strides[:-2], strict=True))
    return (0,) * (axes - len(own)) + own


def _as_matrix(x: Buffer, axis: int) -> Buffer:
    """A vector as a row (axis 0) or column (1)."""
    if len(x.shape) > 1:
        return x
    n, s = x.size, x.strides[0]
    return x.view((1, n), (0, s)) if axis == 0 else x.view((n, 1), (s, 0))


@kernels.register(ops.matmul, out=True)
def matmul(a: Buffer, b: Buffer, *, out: Buffer | None = None) -> Buffer:
    dtype = a.dtype
    if dtype in HALVES and not a.memory.runtime.halves:
        return delivered(matmul(cast(a, dtypes.float32), cast(b, dtypes.float32)), dtype, out)
    if dtype is dtypes.bool_:
        return delivered(matmul(cast(a, dtypes.int32), cast(b, dtypes.int32)), dtype, out)
    left, right = _as_matrix(a, 0), _as_matrix(b, 1)
    shape = (*_broadcast(left.shape[:-2], right.shape[:-2]), *left.shape[-2:-1][: len(a.shape) - 1])
    shape = (*shape, *right.shape[-1:][: len(b.shape) - 1])
    result = product("matmul", left, right, None, out)
    return delivered(result if result is out else result.view(shape, row_strides(shape)), dtype, out)


@kernels.register(ops.linear, out=True)
def linear(x: Buffer, weight: Buffer, bias: Buffer | None = None, *, out: Buffer | None = None) -> Buffer:
    dtype = x.dtype
    if (dtype in HALVES and not x.memory.runtime.halves) or dtype is dtypes.bool_:
        wide = dtypes.float32 if dtype in HALVES else dtypes.int32
        return delivered(linear(*(cast(t, wide) for t in (x, weight, bias) if t is not None)), dtype, out)
    swapped = weight.view(weight.shape[::-1], weight.strides[::-1])
    shape = (*x.shape[:-1], weight.shape[0])
    result = product("linear", _as_matrix(x, 0), swapped, bias, out)
    return delivered(result if result is out else result.view(shape, row_strides(shape)), dtype, out)

"""Matrix products through BLAS, on our own threads.

BLAS wakes its threads for products that take a few microseconds, and they wait for each other by spinning: on a
machine that others use too, a small product then takes a scheduler's time slice, milliseconds. Our threads sleep while
they wait, and are woken only where that pays.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from hal import ops
from hal.ops.einstein import parse, spelled
from hal.plugin import Array, Spec, one_blas_thread
from hal_cpu.movement import apart
from hal_cpu.parallel import in_parts
from hal_cpu.table import kernels
from hal_cpu.tiles import multiply

BLAS_ALONE = 1 << 18  # multiply-adds up to which OpenBLAS does not wake its threads
PER_MULTIPLY_ADD = 0.2  # what one costs for `in_parts`: 0.05 as measured, times 4, since products split without loss
_IN_BLAS = "fdFD"  # the codes of float32, float64, complex64 and complex128


def _for_blas(x: Array) -> Array:
    """`x` with one of its last two axes contiguous: for anything else older NumPy has only a slow loop."""
    size = x.itemsize
    return x if x.ndim < 2 or x.strides[-1] == size or x.strides[-2] == size else np.ascontiguousarray(x)


def product(a: Array, b: Array, out: Array | None = None) -> Array:
    """a @ b for arrays of one dtype that BLAS has."""
    if a.ndim == b.ndim == 2:
        return _of_matrices(a, b, out)
    a, b = _for_blas(a), _for_blas(b)
    if a.ndim < 2 or b.ndim < 2 or not a.size:
        return np.matmul(a, b, out=out)
    if b.ndim > 2:
        return _batched(a, b, out)
    # One product instead of one for each matrix of the batch.
    rows = a.reshape(-1, a.shape[-1])
    if out is None:
        return _of_matrices(rows, b, None).reshape(*a.shape[:-1], b.shape[-1])
    if out.flags.c_contiguous:
        _of_matrices(rows, b, out.reshape(-1, b.shape[-1]))
    else:
        np.copyto(out, _of_matrices(rows, b, None).reshape(out.shape))
    return out


def _of_matrices(a: Array, b: Array, out: Array | None) -> Array:
    """a @ b for two matrices: rows or columns of the result on each thread, whichever are more."""
    (m, k), n = a.shape, b.shape[1]
    if m * k * n <= BLAS_ALONE:
        if out is None:
            return a.dot(b)  # half the overhead of np.matmul
        return a.dot(b, out) if out.flags.c_contiguous else np.matmul(a, b, out=out)
    a, b = _for_blas(a), _for_blas(b)
    if out is not None:
        a, b = apart(a, out), apart(b, out)  # a part that is written must not be read by another
    result = np.empty((m, n), a.dtype) if out is None else out

    def rows(start: int, stop: int) -> None:
        multiply(a[start:stop], b, result[start:stop])

    def columns(start: int, stop: int) -> None:
        multiply(a, b[:, start:stop], result[:, start:stop])

    with one_blas_thread():
        in_parts(rows if m >= n else columns, max(m, n), m * k * n * PER_MULTIPLY_ADD)
    return result


def _batched(a: Array, b: Array, out: Array | None) -> Array:
    """a @ b for a batch of matrices: some of the batch on each thread."""
    each = a.shape[-2] * a.shape[-1] * b.shape[-1]
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    if each <= BLAS_ALONE and each * batch[0] <= BLAS_ALONE:
        return np.matmul(a, b, out=out)
    if out is not None:
        a, b = apart(a, out), apart(b, out)
    result = np.empty((*batch, a.shape[-2], b.shape[-1]), a.dtype) if out is None else out

    def part(x: Array, start: int, stop: int) -> Array:
        return x[start:stop] if x.ndim == result.ndim and x.shape[0] > 1 else x

    def some(start: int, stop: int) -> None:
        np.matmul(part(a, start, stop), part(b, start, stop), out=result[start:stop])

    with one_blas_thread():
        in_parts(some, batch[0], each * result.size // (a.shape[-2] * b.shape[-1]) * PER_MULTIPLY_ADD)
    return result


@kernels.register(ops.matmul, out=True)
def matmul(a: Array, b: Array, *, out: Array | None = None) -> Array:
    if a.dtype.char in _IN_BLAS:
        return product(a, b, out)
    if a.dtype.kind in "iu":
        return _integer_product(a, b, out)
    return _rounded(product(a.astype(np.float32), b.astype(np.float32)), a.dtype, out)  # half precision


def _integer_product(a: Array, b: Array, out: Array | None) -> Array:
    """a @ b for integers, which wrap around: through float64 where that is exact and worth it.

    NumPy's loop for integers takes 20 times as long as BLAS does for float64 (measured).
    """
    if a.size * b.size < 10_000 or not _exact_in_float64(a, b):
        return np.matmul(a, b, out=out)
    return _rounded(product(a.astype(np.float64), b.astype(np.float64)).astype(np.int64), a.dtype, out)


def _exact_in_float64(a: Array, b: Array) -> bool:
    """Whether no sum of products exceeds the integers that float64 holds."""
    largest = [max(abs(int(x.max())), abs(int(x.min()))) for x in (a, b)]
    return largest[0] * largest[1] * a.shape[-1] <= 2**53


def _rounded(result: Any, dtype: np.dtype[Any], out: Array | None) -> Array:
    if out is None:
        return np.asarray(result).astype(dtype)
    np.copyto(out, result, casting="unsafe")
    return out


@kernels.register(ops.linear, out=True)
def linear(x: Array, weight: Array, bias: Array | None = None, *, out: Array | None = None) -> Array:
    # The product must not overwrite a bias that is still to be added.
    into = None if bias is not None and out is not None and np.may_share_memory(out, bias) else out
    if x.dtype.char in _IN_BLAS:
        result = product(x, weight.T, into)
        return result if bias is None else np.add(result, bias, result if out is None else out)
    if x.dtype.kind in "iu":
        result = _integer_product(x, weight.T, into)
        return result if bias is None else np.add(result, bias, result if out is None else out)
    wide = [t.astype(np.float32) for t in (x, weight, bias) if t is not None]
    return _rounded(linear(*wide), x.dtype, out)  # half precision


def _is_small(*xs: Spec, equation: str) -> bool:
    sizes = parse(equation, tuple(x.shape for x in xs)).sizes
    terms = ops.einsum.terms
    assert terms is not None
    # Its sums are one after another, so they must be short; half precision is left to matmul, which rounds once.
    return xs[0].dtype.itemsize > 2 and prod(sizes.values()) <= 4096 and terms(*xs, equation=equation) <= 64


@kernels.register(ops.einsum, when=_is_small)
def einsum(*xs: Array, equation: str) -> Array:
    """One loop over everything: for small operands. For others matmul, which einsum is made of, is quicker."""
    result = np.einsum(spelled(equation, tuple(x.shape for x in xs)), *xs)
    return np.array(result) if len(xs) == 1 else result  # which may be a view of a single operand

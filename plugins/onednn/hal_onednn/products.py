"""Matrix products, and layers made of one."""

from __future__ import annotations

from math import prod

import numpy as np

from hal import ops
from hal.plugin import Array
from hal_onednn import layout
from hal_onednn.api import BIAS, DST, SRC, WEIGHTS, Handle
from hal_onednn.finding import api
from hal_onednn.layout import Shape
from hal_onednn.primitive import Primitive, address
from hal_onednn.table import register
from hal_onednn.threads import kept

KEPT = 512  # primitives of one kind
# From how many multiply-adds on oneDNN is ahead of OpenBLAS, measured on one thread with AVX-512: by 5 to 15 % for a
# product of matrices stored by rows, by 20 to 50 % where the right one is stored by columns, as a layer's weights are.
WORTH_IT, WORTH_IT_BY_COLUMNS = 2_000_000, 500_000
NARROW = 8  # rows or columns; with fewer it is behind


def _stored(rows: int, columns: int, by_column: bool) -> Handle:
    return api().layout((rows, columns), (1, rows) if by_column else (columns, 1))


@kept(KEPT)
def _product(m: int, k: int, n: int, left: bool, right: bool, bias: bool) -> Primitive:
    """A primitive for (m, k) @ (k, n), of matrices that are stored by rows, or by columns where it says so."""
    library = api()
    with library.threads.to_make(m * k * n / 50):
        a, b, made = _stored(m, k, left), _stored(k, n, right), layout.plain((m, n))
        added = layout.plain((1, n)) if bias else None
        description = library.create("matmul_primitive_desc", library.engine, a, b, added, made, library.attributes)
        layouts = {SRC: a, WEIGHTS: b, DST: made}
        if added is not None:
            layouts[BIAS] = added
        return Primitive(description, layouts)


def _ordered(x: Array) -> tuple[Array, bool]:
    """A matrix without gaps, and whether it is stored by columns."""
    if x.flags.c_contiguous:
        return x, False
    if x.flags.f_contiguous:
        return x, True
    return np.ascontiguousarray(x), False


def _of_matrices(a: Array, b: Array, *bias: Array, out: Array | None) -> Array:
    (m, k), n = a.shape, b.shape[1]
    a, left = _ordered(a)
    b, right = _ordered(b)
    result = layout.result((m, n), out, plain=True)
    bias = tuple(map(np.ascontiguousarray, bias))
    run = _product(m, k, n, left, right, bool(bias))
    run(address(a), address(b), address(result), *map(address, bias))
    return result


@layout.into_any
def matmul(a: Array, b: Array, *, out: Array | None) -> Array:
    """a @ b, for a (..., m, k) and b (k, n)."""
    rows = None if out is None else out.reshape(-1, b.shape[1])
    result = _of_matrices(a.reshape(-1, a.shape[-1]), b, out=rows)
    return result.reshape(*a.shape[:-1], b.shape[1])


@layout.into_any
def linear(x: Array, weight: Array, *bias: Array, out: Array | None) -> Array:
    """x @ weight.T + bias, for x (..., k) and weight (n, k)."""
    rows = None if out is None else out.reshape(-1, weight.shape[0])
    result = _of_matrices(x.reshape(-1, x.shape[-1]), weight.T, *bias, out=rows)
    return result.reshape(*x.shape[:-1], weight.shape[0])


def _makes_matmul(a: Shape, b: Shape) -> Primitive | None:
    if len(a) < 2 or len(b) != 2:
        return None
    m, (k, n) = prod(a[:-1]), b
    return _product(m, k, n, False, False, False) if min(m, n) >= NARROW and m * k * n >= WORTH_IT else None


def _makes_linear(x: Shape, weight: Shape, *bias: Shape) -> Primitive | None:
    m, (n, k) = prod(x[:-1]), weight
    if min(m, n) < NARROW or m * k * n < WORTH_IT_BY_COLUMNS:
        return None
    return _product(m, k, n, False, True, bool(bias))


register(ops.matmul, _makes_matmul, matmul)
register(ops.linear, _makes_linear, linear)

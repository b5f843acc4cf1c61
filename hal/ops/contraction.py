"""Matrix products: the primitive matmul, and linear, which is a matrix product with a transposed weight and a bias."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from hal import ops
from hal.errors import ShapeError
from hal.op import SUMS, Array, Cost, Grads, Op, Rng, Sample
from hal.ops.common import NUMBERS, check_kind, common, integers, numeric, quiet, unbroadcast, uniform
from hal.ops.steps import in_float32, shaped
from hal.spec import Shape, Spec, broadcast_shapes

if TYPE_CHECKING:
    from hal.tensor import Tensor


def _matrix_shapes(a: Shape, b: Shape) -> tuple[Shape, Shape]:
    """The shapes with a vector on the left made a row and one on the right a column."""
    return ((1, *a) if len(a) == 1 else a), ((*b, 1) if len(b) == 1 else b)


def _infer(a: Spec, b: Spec) -> Spec:
    check_kind("matmul", a, NUMBERS)
    check_kind("matmul", b, NUMBERS)
    if a.ndim == 0 or b.ndim == 0 or a.shape[-1] != b.shape[-2 if b.ndim > 1 else -1]:
        cure = "use * for a single value"
        if a.ndim and b.ndim:
            rows = b.shape[-2 if b.ndim > 1 else -1]
            cure = f"{a.shape[-1]} and {rows} should be equal, so transpose or reshape one of them"
        raise ShapeError(
            f"matmul needs (..., m, k) @ (..., k, n), or a vector of k for either, got {a.shape} @ {b.shape}: {cure}"
        )
    left, right = _matrix_shapes(a.shape, b.shape)
    batch = broadcast_shapes("matmul", left[:-2], right[:-2])
    return Spec((*batch, *left[-2:-1][: a.ndim - 1], *right[-1:][: b.ndim - 1]), a.dtype)


def _swapped(x: Tensor) -> Tensor:
    """The conjugate transpose of the last two axes."""
    axes = (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2)
    swapped: Tensor = ops.permute(x, axes=axes)
    return ops.conj(swapped) if x.dtype.kind == "complex" else swapped


def _summed_product(a: Tensor, b: Tensor, shape: Shape) -> Tensor:
    """a @ b summed down to `shape`, as one product where a batch can be made longer rows or longer sums."""
    extra = a.ndim - len(shape)
    if b.ndim == 2 and a.ndim > 2:
        flat = ops.matmul(ops.reshape(a, shape=(prod(a.shape[:-1]), a.shape[-1])), b)
        return unbroadcast(ops.reshape(flat, shape=(*a.shape[:-1], b.shape[-1])), shape)
    if a.ndim == b.ndim and len(shape) == 2 and extra and a.shape[:-2] == b.shape[:-2]:
        m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
        # (batch, m, k) @ (batch, k, n), summed over the batch, is (m, batch k) @ (batch k, n).
        order = (extra, *range(extra), extra + 1)
        a = ops.reshape(ops.permute(a, axes=order), shape=(m, prod(a.shape[:-2]) * k))
        b = ops.reshape(b, shape=(prod(b.shape[:-2]) * k, n))
        return ops.matmul(a, b)
    return unbroadcast(ops.matmul(a, b), shape)


def _gradient(g: Tensor, out: Tensor, a: Tensor, b: Tensor) -> Grads:
    left, right = _matrix_shapes(a.shape, b.shape)
    batch = out.shape[: out.ndim - (a.ndim > 1) - (b.ndim > 1)]
    g = shaped(g, (*batch, left[-2], right[-1]))

    def of_a() -> Tensor:
        return shaped(_summed_product(g, _swapped(shaped(b, right)), left), a.shape)

    def of_b() -> Tensor:
        return shaped(_summed_product(_swapped(shaped(a, left)), g, right), b.shape)

    return of_a, of_b


def _cost(a: Spec, b: Spec, *, out: Spec) -> Cost:
    return Cost(2 * out.size * a.shape[-1], a.nbytes + b.nbytes + out.nbytes)


def _samples(rng: Rng) -> Iterator[Sample]:
    for a, b in [
        ((2, 3), (3, 4)), ((1, 1), (1, 1)), ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((5, 2, 3), (3, 4)),
        ((2, 3), (5, 3, 2)), ((5, 2, 3), (5, 3, 4)), ((2, 1, 2, 3), (4, 3, 2)), ((1, 2, 3), (4, 3, 2)),
        ((4, 2, 3), (3,)), ((3,), (4, 3, 2)), ((0, 3), (3, 2)), ((2, 0), (0, 3)), ((2, 3), (3, 0)),
        ((0, 2, 3), (3, 2)), ((0,), (0,)),
    ]:  # fmt: skip
        yield Sample((uniform(rng, a), uniform(rng, b)))
    yield Sample((uniform(rng, (3, 2)).T, uniform(rng, (4, 3)).T))
    yield Sample((uniform(rng, (2, 3))[::-1, ::-1], uniform(rng, (6, 8))[::2, ::-2]))
    yield Sample((uniform(rng, (2, 4, 3)).transpose(0, 2, 1), uniform(rng, (2, 5, 4)).transpose(0, 2, 1)))
    yield Sample((uniform(rng, (2, 5, 3, 4)).transpose(0, 2, 1, 3), uniform(rng, (2, 5, 3, 4)).transpose(0, 2, 3, 1)))
    yield Sample((uniform(rng, (130, 700)), uniform(rng, (700, 65))), smooth=False)
    yield Sample((uniform(rng, (9, 33, 65)), uniform(rng, (65, 17))), smooth=False)
    yield Sample((uniform(rng, (2, 70_000)), uniform(rng, (70_000, 3))), smooth=False)
    yield Sample(
        (np.array([[np.nan, 1], [np.inf, 1]], np.float32), np.array([[1, 0], [0, 2]], np.float32)), smooth=False
    )
    for dtype in (np.int8, np.int32, np.int64, np.uint8):
        low = 0 if dtype is np.uint8 else -9
        pair = (integers(rng, (3, 5), low, 10, dtype), integers(rng, (2, 5, 4), low, 10, dtype))
        yield Sample(pair, smooth=False, exact=True)
    pair = (integers(rng, (2, 3), -(2**31), 2**31, np.int64), integers(rng, (3, 2), -(2**31), 2**31, np.int64))
    yield Sample(pair, smooth=False, exact=True)
    yield Sample((rng.random((2, 3)) < 0.5, rng.random((3, 2)) < 0.5), smooth=False, exact=True)
    pairs = ((rng.normal(size=s) + 1j * rng.normal(size=s)).astype(np.complex64) for s in ((2, 3), (3, 2)))
    yield Sample(tuple(pairs), smooth=False, exact=True)


matmul = Op(
    "matmul", _infer, quiet(np.matmul), _samples, _gradient, cost=_cost, kind="contraction", promote=numeric,
    terms=lambda a, b: a.shape[-1], tolerance=SUMS,
    doc="The matrix product over the last two axes, batches broadcast; a vector is a row on the left, a column on the "
        "right. Source: Array API 2024.12, matmul; torch.matmul.",
)  # fmt: skip


# linear


def _infer_linear(x: Spec, weight: Spec, bias: Spec | None = None) -> Spec:
    check_kind("linear", x, NUMBERS)
    if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"linear needs an input (..., in_features) and a weight (out_features, in_features), "
            f"got {x.shape} and {weight.shape}: the last sizes of both should be equal"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(
            f"linear needs a bias of {weight.shape[0]} elements, one for each row of its weight, got {bias.shape}"
        )
    return Spec((*x.shape[:-1], weight.shape[0]), x.dtype)


def _linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    product = np.matmul(x, weight.T)
    return product if bias is None else product + bias


def _linear_by_matmul(x: Tensor, weight: Tensor, *bias: Tensor) -> Tensor:
    return _with_bias(x, weight, *bias) if bias else ops.matmul(x, ops.permute(weight, axes=(1, 0)))


@in_float32  # else half precision would round the product, and then the sum
def _with_bias(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return ops.matmul(x, ops.permute(weight, axes=(1, 0))) + bias


def _gradient_of_linear(g: Tensor, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Grads:
    rows, (outs, ins) = prod(x.shape[:-1]), weight.shape
    flat = shaped(g, (rows, outs))

    def of_x() -> Tensor:
        straight = ops.conj(weight) if weight.dtype.kind == "complex" else weight
        return shaped(ops.matmul(flat, straight), x.shape)

    def of_weight() -> Tensor:
        inputs = shaped(x, (rows, ins))
        inputs = ops.conj(inputs) if x.dtype.kind == "complex" else inputs
        return ops.matmul(ops.permute(flat, axes=(1, 0)), inputs)

    entries = (of_x, of_weight)
    return entries if bias is None else (*entries, lambda: ops.sum(flat, axis=0))


def _cost_of_linear(x: Spec, weight: Spec, bias: Spec | None = None, *, out: Spec) -> Cost:
    read = x.nbytes + weight.nbytes + (bias.nbytes if bias else 0)
    return Cost(2 * out.size * x.shape[-1], read + out.nbytes)


def _terms_of_linear(x: Spec, weight: Spec, bias: Spec | None = None) -> int:
    return x.shape[-1] + (bias is not None)


def _samples_of_linear(rng: Rng) -> Iterator[Sample]:
    for shape, weight in [
        ((2, 3), (4, 3)),
        ((3,), (2, 3)),
        ((2, 5, 3), (4, 3)),
        ((0, 3), (2, 3)),
        ((2, 0), (3, 0)),
        ((2, 3), (0, 3)),
    ]:
        yield Sample((uniform(rng, shape), uniform(rng, weight)))
        yield Sample((uniform(rng, shape), uniform(rng, weight), uniform(rng, weight[:1])))
    strided = (uniform(rng, (3, 4)).T[::-1], uniform(rng, (6, 5))[::2].T[:, ::-1], uniform(rng, (10,))[::-2])
    yield Sample(strided)
    yield Sample((uniform(rng, (2, 3, 4)).transpose(1, 0, 2), uniform(rng, (5, 4)), uniform(rng, (5,))))
    large = (uniform(rng, (64, 784)), uniform(rng, (256, 784)), uniform(rng, (256,)))
    yield Sample(large, smooth=False)
    ints = tuple(integers(rng, s) for s in ((2, 3), (4, 3), (4,)))
    yield Sample(ints, smooth=False, exact=True)


linear = Op(
    "linear", _infer_linear, quiet(_linear), _samples_of_linear, _gradient_of_linear, _linear_by_matmul,
    _cost_of_linear, "contraction", promote=common, terms=_terms_of_linear, tolerance=SUMS,
    doc="x @ weight.T + bias, for an input (..., in_features) and a weight (out_features, in_features). "
        "Source: torch.nn.functional.linear.",
)  # fmt: skip

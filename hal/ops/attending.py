"""Scaled dot-product attention, and its gradient, which computes the probabilities again instead of keeping them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import dtypes, ops
from hal.dtypes import DType
from hal.errors import DTypeError, ShapeError
from hal.op import Array, Cost, Grads, Op, Rng, Sample, Specs, in_norm
from hal.ops.common import FLOATS, check_kind, floating, quiet, unbroadcast, uniform
from hal.ops.precision import widened
from hal.ops.steps import positions, zeros
from hal.spec import Spec, broadcast_shapes

if TYPE_CHECKING:
    from hal.tensor import Tensor


def scaling(scale: float | None, features: int) -> float:
    """What scores are multiplied with: `scale`, or 1 / sqrt(features)."""
    return scale if scale is not None else max(1, features) ** -0.5


def _promote(q: DType, k: DType, v: DType, *mask: DType) -> tuple[DType, ...]:
    """Everything in one floating type, but for a mask that is not floating."""
    floats = tuple(m for m in mask if m.is_floating)
    wide = floating(q, k, v, *floats)
    return (*wide[:3], *(wide[:1] if floats else mask))


def _check(who: str, q: Spec, k: Spec, v: Spec, mask: Spec | None) -> Spec:
    """The spec of the result."""
    for spec in (q, k, v):
        check_kind(who, spec, FLOATS)
    if min(q.ndim, k.ndim, v.ndim) < 2 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ShapeError(
            f"{who} needs queries (..., n, d), keys (..., m, d) and values (..., m, e), "
            f"got {q.shape}, {k.shape} and {v.shape}"
        )
    batch = broadcast_shapes(who, q.shape[:-2], k.shape[:-2], v.shape[:-2])
    scores = (*batch, q.shape[-2], k.shape[-2])
    if mask is not None:
        if mask.dtype.kind not in ("bool", "float"):
            raise DTypeError(f"{who} needs a mask of bool (True: attend) or floats to add, got {mask.dtype.name}")
        padded = (1,) * (len(scores) - mask.ndim) + mask.shape
        if len(padded) > len(scores) or any(n not in (1, m) for n, m in zip(padded, scores, strict=True)):
            raise ShapeError(f"{who} needs a mask that broadcasts to the scores {scores}, got {mask.shape}")
    return Spec((*batch, q.shape[-2], v.shape[-1]), q.dtype)


def _infer(
    q: Spec, k: Spec, v: Spec, mask: Spec | None = None, /, *, causal: bool = False, scale: float | None = None
) -> Spec:
    return _check("attention", q, k, v, mask)


def _infer_gradient(
    g: Spec, out: Spec, q: Spec, k: Spec, v: Spec, mask: Spec | None = None, /, *,
    causal: bool = False, scale: float | None = None,
) -> tuple[Spec, Spec, Spec]:  # fmt: skip
    wanted = _check("attention_gradient", q, k, v, mask)
    if (g.shape, out.shape) != (wanted.shape, wanted.shape):
        raise ShapeError(f"attention_gradient needs g and out of shape {wanted.shape}, got {g.shape} and {out.shape}")
    return q, k, v


# What it consists of.


def _turned(x: Tensor) -> Tensor:
    """The last two axes exchanged."""
    return ops.permute(x, axes=(*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def _probabilities(q: Tensor, k: Tensor, mask: Tensor | None, causal: bool, scale: float | None) -> Tensor:
    """How much each query attends to each key; a query that may attend to none has zeros."""
    scores = ops.matmul(q * scaling(scale, q.shape[-1]), _turned(k))
    if causal:
        rows, columns = positions(scores, scores.ndim - 2), positions(scores, scores.ndim - 1)
        scores = ops.where(ops.less(rows, columns), -np.inf, scores)
    if mask is None:
        return ops.softmax(scores, axis=-1)
    scores = ops.where(mask, scores, -np.inf) if mask.dtype is dtypes.bool_ else scores + mask
    none = ops.equal(ops.max(scores, axis=-1, keepdims=True), -np.inf)
    return ops.where(none, 0.0, ops.softmax(ops.where(none, 0.0, scores), axis=-1))


@widened
def _decompose(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, causal: bool, scale: float | None
) -> Tensor:
    if k.shape[-2] == 0:
        batch = broadcast_shapes("attention", q.shape[:-2], k.shape[:-2], v.shape[:-2])
        return zeros(q, (*batch, q.shape[-2], v.shape[-1]))
    return ops.matmul(_probabilities(q, k, mask, causal, scale), v)


def _slopes(
    g: Tensor, out: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float | None
) -> tuple[Tensor, Tensor]:
    """The probabilities, and the gradient of the scores."""
    p = _probabilities(q, k, mask, causal, scale)
    return p, p * (ops.matmul(g, _turned(v)) - ops.sum(g * out, axis=-1, keepdims=True))


@widened
def _decompose_gradient(
    g: Tensor, out: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *,
    causal: bool, scale: float | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    if k.shape[-2] == 0:
        return zeros(q, q.shape), zeros(k, k.shape), zeros(v, v.shape)
    p, slope = _slopes(g, out, q, k, v, mask, causal, scale)
    slope = slope * scaling(scale, q.shape[-1])
    return (
        unbroadcast(ops.matmul(slope, k), q.shape),
        unbroadcast(ops.matmul(_turned(slope), q), k.shape),
        unbroadcast(ops.matmul(_turned(p), g), v.shape),
    )


def _gradient(
    g: Tensor, out: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *,
    causal: bool, scale: float | None,
) -> Grads:  # fmt: skip
    rest = () if mask is None else (mask,)
    found: list[Tensor] = []

    def part(i: int) -> Callable[[], Tensor]:
        def entry() -> Tensor:
            if not found:  # the three come together
                found.extend(ops.attention_gradient(g, out, q, k, v, *rest, causal=causal, scale=scale))
            return found[i]

        return entry

    def by_mask() -> Tensor:
        assert mask is not None
        return unbroadcast(_slopes(g, out, q, k, v, mask, causal, scale)[1], mask.shape)

    entries = (part(0), part(1), part(2))
    if mask is None:
        return entries
    return (*entries, by_mask if mask.dtype.is_floating and k.shape[-2] else None)


# What it means.


def _reference_probabilities(
    q: Array, k: Array, mask: Array | None, causal: bool, scale: float | None
) -> tuple[Array, float]:
    factor = scaling(scale, q.shape[-1])
    scores = np.einsum("...nd,...md->...nm", q, k) * factor
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:]) > 0, scores, -np.inf)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    e = np.exp(scores - np.max(scores, axis=-1, keepdims=True, initial=-1e300))
    total = np.sum(e, axis=-1, keepdims=True)
    return np.where(total == 0, 0, e / total), factor


@quiet
def _reference(
    q: Array, k: Array, v: Array, mask: Array | None = None, *, causal: bool = False, scale: float | None = None
) -> Array:
    return np.asarray(np.matmul(_reference_probabilities(q, k, mask, causal, scale)[0], v))


@quiet
def _reference_gradient(
    g: Array, out: Array, q: Array, k: Array, v: Array, mask: Array | None = None, *,
    causal: bool = False, scale: float | None = None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    p, factor = _reference_probabilities(q, k, mask, causal, scale)
    slope = p * (np.matmul(g, np.swapaxes(v, -1, -2)) - np.sum(g * out, axis=-1, keepdims=True)) * factor

    def fold(x: Array, like: Array) -> Array:
        x = np.sum(x, axis=tuple(range(x.ndim - like.ndim)))
        return np.sum(x, axis=tuple(i for i, n in enumerate(like.shape) if n == 1 != x.shape[i]), keepdims=True)

    return (
        fold(np.matmul(slope, k), q),
        fold(np.matmul(np.swapaxes(slope, -1, -2), q), k),
        fold(np.matmul(np.swapaxes(p, -1, -2), g), v),
    )


@quiet
def _magnitude_of_gradient(
    g: Array, out: Array, q: Array, k: Array, v: Array, mask: Array | None = None, *,
    causal: bool = False, scale: float | None = None,
) -> float:  # fmt: skip
    """Of the gradients by queries and keys if the differences in them were sums: where they cancel, rounding stays."""
    p, factor = _reference_probabilities(q, k, mask, causal, scale)
    g, out, q, k, v = (np.abs(x) for x in (g, out, q, k, v))
    slope = p * (np.matmul(g, np.swapaxes(v, -1, -2)) + np.sum(g * out, axis=-1, keepdims=True)) * abs(factor)
    both = (np.matmul(slope, k), np.matmul(np.swapaxes(slope, -1, -2), q))
    return max(float(np.max(x, initial=0)) for x in both)


# Samples and costs.


def _ordinary_samples(rng: Rng) -> Iterator[Sample]:
    def qkv(batch: tuple[int, ...], n: int, m: int, d: int, e: int) -> tuple[Array, Array, Array]:
        return uniform(rng, (*batch, n, d)), uniform(rng, (*batch, m, d)), uniform(rng, (*batch, m, e))

    yield Sample(qkv((2,), 3, 5, 4, 6))
    yield Sample(qkv((), 3, 5, 4, 6), {"scale": 0.3})
    for n, m in ((4, 4), (3, 5), (5, 3)):
        yield Sample(qkv((2, 2), n, m, 3, 2), {"causal": True})
    for batch, n, m in (((0,), 3, 5), ((2,), 0, 5), ((2,), 3, 0), ((2,), 1, 1)):
        yield Sample(qkv(batch, n, m, 4, 2))
    allowed = rng.random((3, 5)) < 0.6
    allowed[1] = False  # a query that may attend to nothing
    yield Sample((*qkv((2,), 3, 5, 4, 6), allowed))
    yield Sample((*qkv((2, 2), 3, 5, 4, 6), rng.random((2, 1, 1, 5)) < 0.7), {"causal": True})
    yield Sample((*qkv((2,), 3, 5, 4, 6), uniform(rng, (3, 5))))
    yield Sample((*qkv((2, 2), 3, 5, 4, 6), uniform(rng, (2, 1, 3, 5))))
    minus = np.where(allowed, 0, -np.inf).astype(np.float32)
    yield Sample((*qkv((2,), 3, 5, 4, 6), minus), smooth=False)
    shared = (uniform(rng, (2, 3, 4, 5)), uniform(rng, (2, 1, 6, 5)), uniform(rng, (1, 6, 2)))  # heads share keys
    yield Sample(shared)
    yield Sample((*shared, rng.random((4, 6)) < 0.8))
    heads = tuple(np.swapaxes(uniform(rng, (2, 7, 3, 4)), 1, 2) for _ in range(3))  # as a layer splits its heads
    yield Sample(heads, {"causal": True})
    yield Sample(qkv((1, 2), 2, 3, 0, 2))
    yield Sample(qkv((3, 5), 65, 67, 16, 8), {"causal": True}, smooth=False)
    yield Sample(qkv((2,), 700, 300, 8, 8), smooth=False)
    yield Sample((*qkv((2,), 300, 700, 8, 8), rng.random((2, 300, 700)) < 0.5), smooth=False)


def _samples(rng: Rng) -> Iterator[Sample]:
    yield from _ordinary_samples(rng)
    far = tuple(uniform(rng, shape, -60, 60) for shape in ((2, 3, 4), (2, 5, 4), (2, 5, 6)))
    yield Sample(far, smooth=False)  # exp alone would overflow; too steep for a gradient in float32


def _samples_of_gradient(rng: Rng) -> Iterator[Sample]:
    for sample in _ordinary_samples(rng):
        if sample.inputs[1].shape[-2] == 1:
            continue  # with one key the gradient is 0, and what comes out is roundings of that
        wide = (x if x.dtype == bool else x.astype(np.float64) for x in sample.inputs)
        out = _reference(*wide, **sample.settings).astype(np.float32)
        yield Sample((uniform(rng, out.shape), out, *sample.inputs), sample.settings, sample.smooth)


def _cost(q: Spec, k: Spec, v: Spec, mask: Spec | None = None, *, out: Specs, **settings: Any) -> Cost:
    assert isinstance(out, Spec)
    scores = prod(out.shape[:-1]) * k.shape[-2]
    moved = sum(s.nbytes for s in (q, k, v, out)) + (mask.nbytes if mask is not None else 0)
    return Cost(scores * (2 * q.shape[-1] + 2 * v.shape[-1] + 6), moved)


def _cost_of_gradient(g: Spec, y: Spec, *specs: Spec, out: Specs, **settings: Any) -> Cost:
    forward = _cost(*specs, out=y)
    outs = out if isinstance(out, tuple) else (out,)
    return Cost(forward.flops * 5 // 2, forward.bytes + g.nbytes + sum(o.nbytes for o in outs))


def _promote_gradient(g: DType, out: DType, *given: DType) -> tuple[DType, ...]:
    wanted = _promote(*given)
    return (wanted[0], wanted[0], *wanted)


attention = Op(
    "attention", _infer, _reference, _samples, _gradient, _decompose, _cost, "contraction", _promote,
    tolerance=in_norm(32, "softmax's own, with scores that are rounded sums, and a mean of the values"),
    doc="""Values averaged by how well their keys fit each query: softmax(q @ k.T * scale) @ v.

    q: (..., n, d); k: (..., m, d); v: (..., m, e); the result: (..., n, e). Batch axes broadcast. mask: broadcasts to
    the scores (..., n, m); True (or 0.0) lets a query attend, False (or minus infinity) does not; other floats are
    added. causal: query i attends to keys 0 to i. scale: 1 / sqrt(d) if not given. A query that may attend to nothing
    gets zeros.

    Source: torch.nn.functional.scaled_dot_product_attention; Vaswani et al., "Attention Is All You Need", 2017.""",
)  # fmt: skip

attention_gradient = Op(
    "attention_gradient", _infer_gradient, _reference_gradient, _samples_of_gradient, None, _decompose_gradient,
    _cost_of_gradient, "contraction", _promote_gradient,
    tolerance=in_norm(64, "the forward pass twice over, and differences of terms as large as the gradient"),
    magnitude=_magnitude_of_gradient,
    doc="The gradients of attention by queries, keys and values, from that of its result: (g, out, q, k, v, mask?).",
)  # fmt: skip

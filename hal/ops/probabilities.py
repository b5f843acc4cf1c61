"""Probabilities from scores along one axis: softmax, log_softmax, and their gradients as ops of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import ops
from hal.errors import ShapeError
from hal.op import Array, Cost, Grads, Op, Rng, Sample, Specs, in_norm
from hal.ops.common import FLOATS, check_kind, common, floating, quiet, uniform
from hal.ops.precision import widened
from hal.spec import Spec, normalize_axis

if TYPE_CHECKING:
    from hal.tensor import Tensor

_EXPONENTIALS = in_norm(16, "exp and log within OpenCL's 3 ULP, the rounding of x - max, and a sum")


def _infer(who: str) -> Callable[..., Spec]:
    def infer(x: Spec, *, axis: int = -1) -> Spec:
        check_kind(who, x, FLOATS)
        normalize_axis(who, axis, x.ndim)
        return x

    return infer


def _infer_gradient(who: str) -> Callable[..., Spec]:
    def infer(g: Spec, out: Spec, *, axis: int = -1) -> Spec:
        check_kind(who, out, FLOATS)
        if g.shape != out.shape:
            raise ShapeError(f"{who} needs a gradient of the result's shape {out.shape}, got {g.shape}")
        normalize_axis(who, axis, out.ndim)
        return out

    return infer


def _cost(flops: int) -> Callable[..., Cost]:
    def cost(*specs: Spec, out: Specs, **settings: Any) -> Cost:
        assert isinstance(out, Spec)
        return Cost(flops * out.size, sum(s.nbytes for s in specs) + out.nbytes)

    return cost


def _samples(rng: Rng) -> Iterator[Sample]:
    yield Sample((uniform(rng, (2, 5)),))
    for shape, axis in (((4,), 0), ((3, 4), 0), ((2, 3, 4), 1), ((2, 3, 2, 2), -3), ((5, 1), 1)):
        yield Sample((uniform(rng, shape),), {"axis": axis})
    for shape, axis in (((0, 3), 1), ((3, 0), 1), ((0, 3), 0), ((2, 0, 3), 2)):
        yield Sample((uniform(rng, shape),), {"axis": axis})
    yield Sample((uniform(rng, (4, 3)).T,), {"axis": 0})
    yield Sample((uniform(rng, (3, 4))[:, ::-1],), {"axis": 1})
    yield Sample((uniform(rng, (700, 101)),), {"axis": -1}, smooth=False)
    yield Sample((uniform(rng, (2, 70_001)),), {"axis": -1}, smooth=False)
    yield Sample((uniform(rng, (7, 50, 33)),), {"axis": 1}, smooth=False)
    yield Sample((uniform(rng, (3, 6)) * 5000,), {"axis": 1}, smooth=False)  # exp alone would overflow
    yield Sample((uniform(rng, (3, 4)) + 1000,), {"axis": 1}, smooth=False)
    masked = uniform(rng, (3, 4))
    masked[0, 1:], masked[1, 2], masked[2] = -np.inf, -np.inf, -np.inf  # one left, three left, none left
    yield Sample((masked,), {"axis": 1}, smooth=False)
    yield Sample((np.array([[np.inf, 1, 2], [np.nan, 1, 2]], np.float32),), {"axis": 1}, smooth=False)


def _of_pairs(function: Callable[..., Array]) -> Callable[[Rng], Iterator[Sample]]:
    """Samples (g, out) from those of the op itself."""

    def samples(rng: Rng) -> Iterator[Sample]:
        for sample in _samples(rng):
            (x,) = sample.inputs
            if np.all(np.isfinite(x)):
                out = function(x.astype(np.float64), **sample.settings).astype(np.float32)
                yield Sample((uniform(rng, x.shape), out), sample.settings, sample.smooth)

    return samples


# What the ops mean.


def _shifted(x: Array, axis: int) -> Array:
    return x - np.max(x, axis=axis, keepdims=True, initial=-np.inf)


@quiet
def _reference_softmax(x: Array, *, axis: int = -1) -> Array:
    e = np.exp(_shifted(x, axis))
    return e / np.sum(e, axis=axis, keepdims=True)


@quiet
def _reference_log_softmax(x: Array, *, axis: int = -1) -> Array:
    z = _shifted(x, axis)
    return z - np.log(np.sum(np.exp(z), axis=axis, keepdims=True))


# What they consist of.


def _shift(x: Tensor, axis: int) -> Tensor:
    return x - ops.max(x, axis=axis, keepdims=True)


@widened
def _decompose_softmax(x: Tensor, *, axis: int) -> Tensor:
    if x.spec.size == 0:
        return ops.reshape(x, shape=x.shape)  # nothing has no maximum
    e = ops.exp(_shift(x, axis))
    return e / ops.sum(e, axis=axis, keepdims=True)


@widened
def _decompose_log_softmax(x: Tensor, *, axis: int) -> Tensor:
    if x.spec.size == 0:
        return ops.reshape(x, shape=x.shape)
    z = _shift(x, axis)
    return z - ops.log(ops.sum(ops.exp(z), axis=axis, keepdims=True))


@widened
def _decompose_softmax_gradient(g: Tensor, out: Tensor, *, axis: int) -> Tensor:
    return out * (g - ops.sum(g * out, axis=axis, keepdims=True))


@widened
def _decompose_log_softmax_gradient(g: Tensor, out: Tensor, *, axis: int) -> Tensor:
    return g - ops.exp(out) * ops.sum(g, axis=axis, keepdims=True)


def _gradient_softmax(g: Tensor, out: Tensor, x: Tensor, *, axis: int) -> Grads:
    return (ops.softmax_gradient(g, out, axis=axis),)


def _gradient_log_softmax(g: Tensor, out: Tensor, x: Tensor, *, axis: int) -> Grads:
    return (ops.log_softmax_gradient(g, out, axis=axis),)


softmax = Op(
    "softmax", _infer("softmax"), _reference_softmax, _samples, _gradient_softmax, _decompose_softmax, _cost(6),
    promote=floating, tolerance=_EXPONENTIALS, doc="""exp(x) / sum(exp(x)) along `axis`, without overflow.

    A row of nothing but minus infinity gives NaN, as in torch. Source: torch.nn.functional.softmax.""",
)  # fmt: skip

log_softmax = Op(
    "log_softmax", _infer("log_softmax"), _reference_log_softmax, _samples, _gradient_log_softmax,
    _decompose_log_softmax, _cost(6), promote=floating, tolerance=_EXPONENTIALS,
    doc="""The logarithm of softmax along `axis`: x - log(sum(exp(x))), without overflow or underflow.

    Source: torch.nn.functional.log_softmax.""",
)  # fmt: skip

softmax_gradient = Op(
    "softmax_gradient", _infer_gradient("softmax_gradient"),
    quiet(lambda g, out, *, axis=-1: out * (g - np.sum(g * out, axis=axis, keepdims=True))),
    _of_pairs(_reference_softmax), None, _decompose_softmax_gradient, _cost(4), promote=common,
    tolerance=in_norm(32, "a difference of two terms that are each as large as the gradient"),
    doc="The gradient of softmax, from that of its result `out`: out * (g - sum(g * out)).",
)  # fmt: skip

log_softmax_gradient = Op(
    "log_softmax_gradient", _infer_gradient("log_softmax_gradient"),
    quiet(lambda g, out, *, axis=-1: g - np.exp(out) * np.sum(g, axis=axis, keepdims=True)),
    _of_pairs(_reference_log_softmax), None, _decompose_log_softmax_gradient, _cost(4), promote=common,
    tolerance=in_norm(32, "a difference of two terms that are each as large as the gradient"),
    doc="The gradient of log_softmax, from that of its result `out`: g - exp(out) * sum(g).",
)  # fmt: skip

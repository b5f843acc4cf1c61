"""Integers that stand for real numbers: quantize, dequantize, and products of 8-bit integers summed in 32 bits.

A quantized array q stands for q * scale, with one scale for all of it or one for each channel; zero stands for zero.
`quantize` multiplies by the reciprocal of the scale: products are rounded alike on every device, quotients are not, and
a last place is enough to round to another integer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import dtypes, ops
from hal.dtypes import DType
from hal.errors import DTypeError, SettingError, ShapeError
from hal.op import Array, Cost, Op, Rng, Sample
from hal.ops.common import integers, quiet, uniform
from hal.ops.convolution import check_bias, check_convolution
from hal.spec import Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor

Sizes = tuple[int, ...]
NO_GRADIENT = "rounding to integers has no slope"
NARROW = ("int8", "int16")


def _along(factor: Any, ndim: int, axis: int | None) -> Any:
    """Numbers, one for each place along an axis, shaped so that they broadcast with an array of `ndim` axes."""
    if axis is None:
        return factor
    shape = tuple(factor.shape[0] if i == axis % ndim else 1 for i in range(ndim))
    return factor.reshape(shape) if isinstance(factor, np.ndarray) else ops.reshape(factor, shape=shape)


def _check_factor(who: str, x: Spec, factor: Spec, axis: int | None) -> None:
    if axis is None and factor.ndim:
        raise ShapeError(f"{who} needs one number for all elements, got shape {factor.shape}; or say along which axis=")
    if axis is not None and (not -x.ndim <= axis < x.ndim or factor.shape != (x.shape[axis],)):
        raise ShapeError(
            f"{who} with axis={axis} needs a number for each place along it, for shape {x.shape}; got {factor.shape}"
        )


# Between real numbers and integers.


def _promote_quantize(x: DType, factor: DType) -> tuple[DType, DType]:
    return (x if x is dtypes.int32 else dtypes.float32), dtypes.float32


def _infer_quantize(x: Spec, factor: Spec, *, axis: int | None = None, low: int = -128, high: int = 127) -> Spec:
    _check_factor("quantize", x, factor, axis)
    if not -128 <= low <= high <= 127:
        raise SettingError(f"quantize needs low= and high= within -128 and 127, got {low} and {high}")
    return Spec(x.shape, dtypes.int8)


def _quantize(x: Array, factor: Array, *, axis: int | None, low: int, high: int) -> Array:
    scaled = x.astype(np.float32) * _along(factor.astype(np.float32), x.ndim, axis)
    return np.asarray(np.clip(np.rint(scaled), low, high)).astype(np.int8)


def _quantize_in_ops(x: Tensor, factor: Tensor, *, axis: int | None, low: int, high: int) -> Tensor:
    real = ops.cast(x, dtype=dtypes.float32) if x.dtype is not dtypes.float32 else x
    whole = ops.round(real * _along(factor, x.ndim, axis))
    found: Tensor = ops.cast(ops.clip(whole, low=float(low), high=float(high)), dtype=dtypes.int8)
    return found


def _samples_of_quantize(rng: Rng) -> Iterator[Sample]:
    def call(x: Array, factor: Any, **settings: Any) -> Sample:
        return Sample((x, np.asarray(factor, np.float32)), settings, smooth=False, exact=True)

    yield call(uniform(rng, (3, 4)), 40.0)
    yield call(uniform(rng, (3, 4)), 100.0)  # many are out of range
    yield call(np.array([0.5, 1.5, -0.5, -2.5, 126.5, 127.5, -128.5, 3e9, -0.0], np.float32), 1.0)  # ties go to even
    yield call(uniform(rng, (2, 3, 4)), [10.0, 20.0, 30.0], axis=1)
    yield call(uniform(rng, (2, 3)), [10.0, 20.0, 30.0], axis=-1, low=0)
    yield call(uniform(rng, ()), 12.5)
    yield call(uniform(rng, (0, 3)), 12.5)
    yield call(integers(rng, (4, 5), -100_000, 100_000), 1e-3, low=0, high=127)
    yield call(uniform(rng, (70_001,)), 63.0)


quantize = Op(
    "quantize", _infer_quantize, quiet(_quantize), _samples_of_quantize, None, _quantize_in_ops,
    lambda x, factor, out, **settings: Cost(3 * out.size, x.nbytes + factor.nbytes + out.nbytes),
    promote=_promote_quantize, no_gradient=NO_GRADIENT,
    doc="""x * factor, rounded to the nearest integer (ties to even), at least `low`, at most `high`, as int8.

    x: any real dtype (computed in float32), or int32, the sums of a product. factor: the reciprocal of the scale, 0-d,
    or one for each place along `axis`. With low=0 it is a relu as well. NaN gives any integer.

    Source: ONNX QuantizeLinear, with a zero point of zero; Jacob et al., CVPR 2018.""",
)  # fmt: skip


def _infer_dequantize(x: Spec, scale: Spec, *, axis: int | None = None) -> Spec:
    if x.dtype.kind != "int":
        raise DTypeError(f"dequantize takes integers, got {x.dtype.name}")
    _check_factor("dequantize", x, scale, axis)
    return Spec(x.shape, dtypes.float32)


def _dequantize(x: Array, scale: Array, *, axis: int | None) -> Array:
    return x.astype(np.float32) * _along(scale.astype(np.float32), x.ndim, axis)


def _dequantize_in_ops(x: Tensor, scale: Tensor, *, axis: int | None) -> Tensor:
    return ops.cast(x, dtype=dtypes.float32) * _along(scale.detach(), x.ndim, axis)


def _samples_of_dequantize(rng: Rng) -> Iterator[Sample]:
    def call(x: Array, scale: Any, **settings: Any) -> Sample:
        return Sample((x, np.asarray(scale, np.float32)), settings, smooth=False, exact=True)

    yield call(integers(rng, (3, 4), -128, 128, np.int8), 0.1)
    yield call(integers(rng, (2, 3, 4), -9999, 9999), [0.1, 0.2, 0.3], axis=1)
    yield call(integers(rng, (0,), dtype=np.int8), 0.1)


dequantize = Op(
    "dequantize", _infer_dequantize, quiet(_dequantize), _samples_of_dequantize, None, _dequantize_in_ops,
    lambda x, scale, out, **settings: Cost(2 * out.size, x.nbytes + scale.nbytes + out.nbytes),
    promote=lambda x, scale: (x, dtypes.float32), no_gradient="integers have no gradient",
    doc="""x * scale in float32, for integers x: what they stand for.

    scale: 0-d, or one for each place along `axis`. Source: ONNX DequantizeLinear.""",
)  # fmt: skip


# Products. Sums wrap around in 32 bits.


def _check_integers(who: str, x: Spec, weight: Spec, bias: Spec | None) -> None:
    if x.dtype.name not in NARROW or weight.dtype.name not in NARROW:
        raise DTypeError(
            f"{who} takes int8 or int16, got {x.dtype.name} and {weight.dtype.name}: make them with hal.quantize"
        )
    if bias is not None and bias.dtype is not dtypes.int32:
        raise DTypeError(f"{who} adds a bias of int32 to its sums, got {bias.dtype.name}")


def _wrapped(x: Array) -> Array:
    return x.astype(np.int64).astype(np.int32)


def _infer_linear(x: Spec, weight: Spec, bias: Spec | None = None) -> Spec:
    _check_integers("integer_linear", x, weight, bias)
    result = ops.linear.infer(x, weight, bias)
    assert isinstance(result, Spec)
    return result.with_dtype(dtypes.int32)


def _linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    total = np.matmul(x.astype(np.int64), weight.astype(np.int64).T)
    return _wrapped(total if bias is None else total + bias)


def _wide(*xs: Tensor) -> list[Tensor]:
    return [x if x.dtype is dtypes.int32 else ops.cast(x, dtype=dtypes.int32) for x in xs]


def _linear_in_ops(x: Tensor, weight: Tensor, *bias: Tensor) -> Tensor:
    found: Tensor = ops.linear(*_wide(x, weight, *bias))
    return found


def _int8(rng: Rng, *shape: int) -> Array:
    return integers(rng, shape, -128, 128, np.int8)


def _samples_of_linear(rng: Rng) -> Iterator[Sample]:
    for x, weight in [((2, 3), (4, 3)), ((3,), (2, 3)), ((2, 5, 3), (4, 3)), ((0, 3), (2, 3)), ((2, 0), (3, 0))]:
        yield Sample((_int8(rng, *x), _int8(rng, *weight)), smooth=False, exact=True)
    bias = integers(rng, (17,), -(2**20), 2**20)
    yield Sample((_int8(rng, 9, 1300), _int8(rng, 17, 1300), bias), smooth=False, exact=True)
    lowest = np.full((2, 2100), -128, np.int8)  # the largest sums of products that there are
    yield Sample((lowest, lowest), smooth=False, exact=True)
    wide = integers(rng, (3, 40), -(2**15), 2**15, np.int16)
    yield Sample((wide, _int8(rng, 5, 40)), smooth=False, exact=True)


integer_linear = Op(
    "integer_linear", _infer_linear, _linear, _samples_of_linear, None, _linear_in_ops,
    lambda x, weight, *bias, out: Cost(2 * out.size * x.shape[-1], x.nbytes + weight.nbytes + out.nbytes),
    "contraction", no_gradient="integers have no gradient",
    doc="""x @ weight.T + bias for 8- or 16-bit integers, summed in int32, which wraps around.

    x: (..., in_features), weight: (out_features, in_features), bias: int32 (out_features). Source: ONNX
    MatMulInteger.""",
)  # fmt: skip


def _infer_conv2d(
    x: Spec, weight: Spec, bias: Spec | None = None, *,
    stride: Sizes = (1, 1), padding: Sizes = (0, 0), dilation: Sizes = (1, 1), groups: int = 1,
) -> Spec:  # fmt: skip
    _check_integers("integer_conv2d", x, weight, bias)
    out = check_convolution("integer_conv2d", 2, x, weight.shape, stride, padding, dilation, groups)
    check_bias("integer_conv2d", bias, weight.shape[0])
    return Spec((x.shape[0], weight.shape[0], *out), dtypes.int32)


def _conv2d(x: Array, weight: Array, bias: Array | None = None, **settings: Any) -> Array:
    wide = (t.astype(np.int64) for t in (x, weight, bias) if t is not None)
    return _wrapped(ops.conv2d.reference(*wide, **settings))


def _conv2d_in_ops(x: Tensor, weight: Tensor, *bias: Tensor, **settings: Any) -> Tensor:
    found: Tensor = ops.conv2d(*_wide(x, weight, *bias), **settings)
    return found


def _samples_of_conv2d(rng: Rng) -> Iterator[Sample]:
    calls: list[tuple[Sizes, Sizes, dict[str, Any]]] = [
        ((2, 3, 5, 6), (4, 3, 3, 2), {}),
        ((1, 4, 6, 7), (6, 2, 3, 3), {"stride": (2, 1), "padding": (1, 1), "groups": 2}),
        ((1, 2, 7, 7), (3, 2, 2, 3), {"dilation": (2, 1)}),
        ((0, 2, 4, 4), (3, 2, 2, 2), {}),
    ]
    for x, weight, settings in calls:
        yield Sample((_int8(rng, *x), _int8(rng, *weight)), settings, smooth=False, exact=True)
        bias = integers(rng, weight[:1], -(2**20), 2**20)
        yield Sample((_int8(rng, *x), _int8(rng, *weight), bias), settings, smooth=False, exact=True)


def _cost_of_conv2d(x: Spec, weight: Spec, *bias: Spec, out: Spec, **settings: Any) -> Cost:
    found: Cost = ops.conv2d.cost(x, weight, *bias, out=out, **settings)
    return found


integer_conv2d = Op(
    "integer_conv2d", _infer_conv2d, _conv2d, _samples_of_conv2d, None, _conv2d_in_ops, _cost_of_conv2d, "contraction",
    no_gradient="integers have no gradient",
    doc="""The convolution of 8- or 16-bit integers, summed in int32, which wraps around; the bias is int32.

    Layouts are those of conv2d. Source: ONNX ConvInteger.""",
)  # fmt: skip

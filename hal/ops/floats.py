"""What a floating-point number is, element by element: NaN, infinite, finite, negative, its sign, its neighbour."""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from hal import ops
from hal.op import Tolerance
from hal.ops.common import FLOATS, NUMBERS, REAL_NUMBERS, bool_result, elementwise, floating, numeric, zero

if TYPE_CHECKING:
    from hal.tensor import Tensor


def _isinf(x: Tensor) -> Tensor:
    if x.dtype.kind == "complex":
        return ops.logical_or(ops.isinf(ops.real(x)), ops.isinf(ops.imag(x)))
    return ops.equal(ops.abs(x), inf) if x.dtype.is_floating else ops.not_equal(x, x)


def _isfinite(x: Tensor) -> Tensor:
    if x.dtype.kind == "complex":
        return ops.logical_and(ops.isfinite(ops.real(x)), ops.isfinite(ops.imag(x)))
    return ops.less(ops.abs(x), inf) if x.dtype.is_floating else ops.equal(x, x)


def _signbit(x: Tensor) -> Tensor:
    if not x.dtype.is_floating:
        return ops.less(x, 0)
    return ops.less(ops.where(ops.equal(x, 0), 1 / x, x), 0)  # 1 / -0.0 is negative


def _copysign(a: Tensor, b: Tensor) -> Tensor:
    size = ops.abs(a)
    return ops.where(ops.signbit(b), -size, size)


_question = partial(elementwise, promote=numeric, result=bool_result, wide=False, no_gradient="the result is bool")

# fmt: off
isnan     = _question("isnan", np.isnan, decompose=lambda x: ops.not_equal(x, x), kinds=NUMBERS,
                      doc="Whether x is not a number.")
isinf     = _question("isinf", np.isinf, decompose=_isinf, kinds=NUMBERS, sampled=REAL_NUMBERS,
                      doc="Whether x is infinite.")
isfinite  = _question("isfinite", np.isfinite, decompose=_isfinite, kinds=NUMBERS, sampled=REAL_NUMBERS,
                      doc="Whether x is neither infinite nor NaN.")
signbit   = _question("signbit", np.signbit, decompose=_signbit, kinds=REAL_NUMBERS,
                      doc="Whether x is negative; true for -0.0. The sign of a NaN is whatever the device makes of it.")
copysign  = elementwise("copysign", np.copysign, (lambda g, y, a, b: g * (ops.sign(a) * ops.sign(y)), zero),
                        decompose=_copysign, promote=floating, kinds=FLOATS, wide=False, flops=4,
                        doc="The magnitude of a with the sign of b, even of -0.0. The gradient at a = 0 is zero.")
nextafter = elementwise("nextafter", np.nextafter, promote=floating, kinds=FLOATS,
                        no_gradient="it steps from one floating-point number to the next",
                        host_only="no primitive takes the bits of a floating-point number apart",
                        tolerance=Tolerance(1, 1, 1, 1, source="the reference steps in float64"),
                        doc="The next number of the dtype after a on the way to b.")
# fmt: on

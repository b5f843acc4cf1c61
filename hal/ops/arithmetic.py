"""Arithmetic, element by element: the primitives add, mul, div, floor_divide, and what is made of them.

Complex numbers are computed with and have no gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from hal import dtypes, ops
from hal.dtypes import DType
from hal.op import Rng, Sample, Tolerance
from hal.ops.common import ALL_KINDS, INEXACT, NUMBERS, ORDINARY, REAL_NUMBERS, elementwise, floating, numeric, zero

if TYPE_CHECKING:
    from hal.tensor import Tensor


def real_result(dtype: DType) -> DType:
    """The result is real: as wide as the parts of the (promoted) input."""
    return {dtypes.complex64: dtypes.float32, dtypes.complex128: dtypes.float64}.get(dtype, dtype)


def _abs(x: Tensor) -> Tensor:
    if x.dtype.kind == "complex":
        return ops.hypot(ops.real(x), ops.imag(x))
    return ops.where(ops.less(0, x), x, 0 - x)  # 0 - x, since the negative of zero is not its magnitude


def _sign(x: Tensor) -> Tensor:
    if x.dtype.kind == "complex":
        size = ops.abs(x)
        return x / ops.where(ops.equal(size, 0), 1, size)
    return ops.where(ops.less(0, x), 1, ops.where(ops.less(x, 0), -1, x + 0))  # NaN stays, and -0.0 becomes 0.0


# Remainders. A float's is exact, as IEEE 754 wants it, while the quotient has at most half the digits of the dtype:
# the divisor is split so that both halves times the quotient are exact.


def _remainder_of_sizes(a: Tensor, b: Tensor) -> Tensor:
    quotient = ops.floor_divide(a, b)
    shifted = b * (2.0**27 + 1 if b.dtype is dtypes.float64 else 2.0**12 + 1)
    high = shifted - (shifted - b)
    return (a - quotient * high) - quotient * (b - high)


def _fmod(a: Tensor, b: Tensor) -> Tensor:
    if not a.dtype.is_floating:
        r = ops.remainder(a, b)
        crossed = ops.logical_and(ops.not_equal(r, 0), ops.not_equal(ops.less(a, 0), ops.less(b, 0)))
        return ops.where(crossed, r - b, r)
    size, divisor = ops.abs(a), ops.abs(b)
    r = _remainder_of_sizes(size, divisor)
    return ops.where(ops.less(size, divisor), a, ops.where(ops.less(a, 0), -r, r))  # also right for b = inf


def _remainder(a: Tensor, b: Tensor) -> Tensor:
    if not a.dtype.is_floating:
        return a - ops.floor_divide(a, b) * b
    r = ops.fmod(a, b)
    crossed = ops.logical_and(ops.not_equal(r, 0), ops.not_equal(ops.less(r, 0), ops.less(b, 0)))
    return ops.where(crossed, r + b, r)


def _negative_divisors(rng: Rng) -> Iterator[Sample]:
    ties = np.meshgrid(np.array([-6, -4.5, -1, 0, 3, 7.5], np.float32), np.array([-2, -1.5, 1.5, 3], np.float32))
    yield Sample(tuple(x.reshape(-1) for x in ties), smooth=False)
    for dtype in (np.int8, np.int64):
        numbers = np.meshgrid(np.arange(-9, 10, dtype=dtype), np.array([-4, -3, -1, 1, 2, 5], dtype))
        yield Sample(tuple(x.reshape(-1) for x in numbers), smooth=False, exact=True)


_FINITE = (np.nan, 0.0, -0.0, 1.0, -1.0, 0.5)  # what infinity divided and rounded down is, no two standards agree on
_LAST_PLACE = Tolerance(1, 1, 1, 1, source="a - fmod(a, b) and its quotient are rounded, as NumPy and torch do")
_exact = partial(elementwise, wide=False)
_quotient = partial(elementwise, kinds=REAL_NUMBERS, promote=numeric, domain=((-2.0, 2.0), (0.1, 2.0)),
                    whole=((-9, 10), (1, 10)), extra=_negative_divisors)  # fmt: skip

# fmt: off
add = elementwise("add", np.add, (lambda g, y, a, b: g, lambda g, y, a, b: g),
                  kinds=ALL_KINDS, doc="a + b (for bool: or).")
mul = elementwise("mul", np.multiply, (lambda g, y, a, b: g * b, lambda g, y, a, b: g * a),
                  kinds=ALL_KINDS, doc="a * b (for bool: and).")
div = elementwise("div", np.true_divide, (lambda g, y, a, b: g / b, lambda g, y, a, b: -g * y / b),
                  promote=floating, kinds=INEXACT, doc="a / b in floating point, also for integers.")
floor_divide = _quotient("floor_divide", np.floor_divide, (zero, zero), special=_FINITE, tolerance=_LAST_PLACE,
                         doc="The largest integer that is not above a / b, in the dtype of the inputs. "
                             "An integer divided by zero is whatever the device makes of it.")
remainder = _quotient("remainder", np.remainder,
                      (lambda g, y, a, b: g, lambda g, y, a, b: -g * ops.floor_divide(a, b)),
                      decompose=_remainder, special=ORDINARY, flops=20,
                      doc="a - floor(a / b) * b, as Python's %: the result has the sign of b.")
fmod = _quotient("fmod", np.fmod, (lambda g, y, a, b: g, lambda g, y, a, b: -g * ops.trunc(a / b)),
                 decompose=_fmod, special=ORDINARY, flops=20,
                 doc="a - trunc(a / b) * b, as in C: the result has the sign of a.")
sub = _exact("sub", np.subtract, (lambda g, y, a, b: g, lambda g, y, a, b: -g),
             decompose=lambda a, b: a + (-b), kinds=NUMBERS, doc="a - b.")
neg = _exact("neg", np.negative, lambda g, y, x: -g,
             decompose=lambda x: ops.mul(x, -1), promote=numeric, kinds=NUMBERS,
             doc="-x; unsigned integers wrap around.")
abs = _exact("abs", np.abs, lambda g, y, x: g * ops.sign(x),
             decompose=_abs, promote=numeric, kinds=NUMBERS, sampled=REAL_NUMBERS, result=real_result,
             doc="The magnitude; real for complex inputs. The gradient at zero is zero.")
sign = _exact("sign", np.sign, zero,
              decompose=_sign, promote=numeric, kinds=NUMBERS, sampled=REAL_NUMBERS,
              doc="-1, 0 or 1 (NaN for NaN); x / abs(x) for complex inputs.")
square = _exact("square", np.square, lambda g, y, x: g * (2 * x),
                decompose=lambda x: x * x, promote=numeric, kinds=NUMBERS, doc="x * x.")
reciprocal = _exact("reciprocal", np.reciprocal, lambda g, y, x: -g * (y * y),
                    decompose=lambda x: 1 / x, promote=floating, kinds=INEXACT,
                    doc="1 / x in floating point, also for integers.")
# fmt: on

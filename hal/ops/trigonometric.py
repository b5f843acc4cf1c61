"""Trigonometric functions and their inverses, element by element: the primitives sin and cos, and what they make."""

from __future__ import annotations

from functools import partial
from math import pi, sqrt
from typing import TYPE_CHECKING

import numpy as np

from hal import dtypes, ops
from hal.ops.common import FLOATS, INEXACT, elementwise, floating, horner, odd, unless_complex

if TYPE_CHECKING:
    from hal.tensor import Tensor

# (atan(t) / t - 1) / t**2 as a polynomial in t**2 for |t| <= sqrt(2) - 1, fitted to the least relative error of atan
# (2**-28.5 and 2**-57.4) by Remez's exchange in 60 digits. The float32 one serves the halves too.
ATAN = {
    dtypes.float32: (
        -0.06456368729858558, 0.10745265751780168, -0.14264121677541663, 0.19999546262390142, -0.33333331792881116,
    ),
    dtypes.float64: (
        -0.019194357793390168, 0.03924668731162345, -0.05085999363529887, 0.058582602336952415, -0.06664525078123695,
        0.07692184224320832, -0.09090904625858519, 0.11111111016523825, -0.1428571428468366, 0.1999999999999561,
        -0.3333333333333333,
    ),
}  # fmt: skip


def _atan(x: Tensor) -> Tensor:
    # An eighth of a turn, or a quarter, is taken off first, so that |t| <= tan(pi / 8).
    size = ops.abs(x)
    far, middle = ops.less(sqrt(2) + 1, size), ops.less(sqrt(2) - 1, size)
    t = ops.where(far, -1 / size, ops.where(middle, (size - 1) / (size + 1), size))
    square = t * t
    y = t + t * square * horner(square, ATAN[x.dtype])
    return odd(x, ops.where(far, y + pi / 2, ops.where(middle, y + pi / 4, y)))


def _atan2(a: Tensor, b: Tensor) -> Tensor:
    rise, run = ops.abs(a), ops.abs(b)
    large, small = ops.maximum(rise, run), ops.minimum(rise, run)
    ratio = ops.where(ops.equal(small, large), ops.where(ops.equal(large, 0), 0, large / large), small / large)
    ratio = ops.where(ops.isinf(small), 1, ratio)  # both infinite: half way between the axes
    y = ops.atan(ratio)
    y = ops.where(ops.less(run, rise), pi / 2 - y, y)
    y = ops.where(ops.signbit(b), pi - y, y)
    return ops.copysign(y, a)


def _by_rise(g: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    square = a * a + b * b
    return g * (b / ops.where(ops.equal(square, 0), 1, square))  # zero at the origin, as in torch


def _by_run(g: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    square = a * a + b * b
    return -g * (a / ops.where(ops.equal(square, 0), 1, square))


_function = partial(elementwise, promote=floating, kinds=INEXACT, domain=(-9.0, 9.0), flops=10)
_inverse = partial(_function, domain=(-0.95, 0.95), flops=25)

# fmt: off
sin   = _function("sin", np.sin, lambda g, y, x: g * ops.cos(x), doc="The sine of x radians.")
cos   = _function("cos", np.cos, lambda g, y, x: -g * ops.sin(x), doc="The cosine of x radians.")
tan   = _function("tan", np.tan, lambda g, y, x: g * (1 + y * y),
                  decompose=lambda x: ops.sin(x) / ops.cos(x), domain=(-1.3, 1.3), doc="The tangent of x radians.")
asin  = _inverse("asin", np.arcsin, lambda g, y, x: g / ops.sqrt((1 - x) * (1 + x)),
                 decompose=unless_complex(lambda x: ops.atan(x / ops.sqrt((1 - x) * (1 + x))),
                                          lambda z: -1j * ops.log(1j * z + ops.sqrt(1 - z) * ops.sqrt(1 + z))),
                 doc="The angle in [-pi/2, pi/2] of which x is the sine; NaN outside [-1, 1].")
acos  = _inverse("acos", np.arccos, lambda g, y, x: -g / ops.sqrt((1 - x) * (1 + x)),
                 decompose=unless_complex(lambda x: 2 * ops.atan(ops.sqrt((1 - x) / (1 + x))),
                                          lambda z: pi / 2 - ops.asin(z)),
                 doc="The angle in [0, pi] of which x is the cosine; NaN outside [-1, 1].")
atan  = _inverse("atan", np.arctan, lambda g, y, x: g / (1 + x * x),
                 decompose=unless_complex(_atan, lambda z: 0.5j * (ops.log(1 - 1j * z) - ops.log(1 + 1j * z))),
                 domain=(-4.0, 4.0), doc="The angle in [-pi/2, pi/2] of which x is the tangent.")
atan2 = _inverse("atan2", np.arctan2, (_by_rise, _by_run),
                 decompose=_atan2, kinds=FLOATS, domain=(-2.0, 2.0), flops=40,
                 doc="The angle in [-pi, pi] of the point b to the right and a upwards; signed zeros choose the side.")
# fmt: on

"""Exponentials and logarithms, element by element: the primitives exp and log, and what is made of them."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from hal import ops
from hal.op import in_norm
from hal.ops.common import FLOATS, INEXACT, elementwise, floating

if TYPE_CHECKING:
    from hal.tensor import Tensor

LN2, LN10 = math.log(2), math.log(10)


def _expm1(x: Tensor) -> Tensor:
    # u = exp(x) is exp(log(u)), so what its rounding lost of exp(x) - 1 is u (x - log(u)).
    # Source: W. Kahan's use of log(u), in N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 1.14.1.
    u = ops.exp(x)
    y = (u - 1) + u * (x - ops.log(u))
    y = ops.where(ops.equal(y, y), y, u - 1)  # u is 0 or infinite: nothing was lost
    return ops.where(ops.equal(u, 1), x, y)


def _log1p(x: Tensor) -> Tensor:
    # u = 1 + x after rounding, and what the rounding lost, x - (u - 1), is exact.
    u = 1 + x
    y = ops.log(u) + (x - (u - 1)) / u
    y = ops.where(ops.equal(y, y), y, ops.log(u))  # u is 0, infinite or negative
    return ops.where(ops.equal(u, 1), x, y)


def _logaddexp(a: Tensor, b: Tensor) -> Tensor:
    large = ops.maximum(a, b)
    between = ops.where(ops.equal(a, b), 0, ops.abs(a - b))  # infinities that are equal are no distance apart
    return large + ops.log1p(ops.exp(-between))


_function = partial(elementwise, promote=floating, kinds=INEXACT, domain=(-6.0, 6.0), flops=10)
_logarithm = partial(_function, domain=(0.1, 4.0))

# fmt: off
exp   = _function("exp", np.exp, lambda g, y, x: g * y, doc="e to the power of x.")
exp2  = _function("exp2", np.exp2, lambda g, y, x: g * (y * LN2),
                  decompose=lambda x: ops.pow(2, x), wide=False, doc="2 to the power of x.")
expm1 = _function("expm1", np.expm1, lambda g, y, x: g * (y + 1),
                  decompose=_expm1, doc="exp(x) - 1, accurate where x is small.")
log   = _logarithm("log", np.log, lambda g, y, x: g / x, doc="The natural logarithm.")
log2  = _logarithm("log2", np.log2, lambda g, y, x: g / (x * LN2),
                   decompose=lambda x: ops.log(x) * (1 / LN2), doc="The logarithm to base 2.")
log10 = _logarithm("log10", np.log10, lambda g, y, x: g / (x * LN10),
                   decompose=lambda x: ops.log(x) * (1 / LN10), doc="The logarithm to base 10.")
log1p = _logarithm("log1p", np.log1p, lambda g, y, x: g / (x + 1),
                   decompose=_log1p, domain=(-0.9, 4.0), doc="log(1 + x), accurate where x is small.")
logaddexp = _function("logaddexp", np.logaddexp,
                      (lambda g, y, a, b: g * ops.sigmoid(a - b), lambda g, y, a, b: g * ops.sigmoid(b - a)),
                      decompose=_logaddexp, kinds=FLOATS, flops=25, tolerance=in_norm(4),
                      doc="log(exp(a) + exp(b)) without overflow.")
# fmt: on

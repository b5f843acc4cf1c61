"""Hyperbolic functions and their inverses, element by element: the primitive tanh, and what is made of exp and log."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from hal import ops
from hal.ops.common import INEXACT, elementwise, floating, odd, unless_complex
from hal.ops.exponential import LN2

if TYPE_CHECKING:
    from hal.tensor import Tensor

_FAR = 20.0  # where exp(-x) is nothing beside exp(x), in float64 too
_VERY_FAR = 1e8  # where 1 is nothing beside x * x


def _half_exp(size: Tensor) -> Tensor:
    """exp(size) / 2, also where exp(size) itself overflows."""
    root = ops.exp(size * 0.5)
    return (root * 0.5) * root


def _sinh(x: Tensor) -> Tensor:
    size = ops.abs(x)
    e = ops.expm1(size)
    return odd(x, ops.where(ops.less(size, _FAR), (e + e / (e + 1)) * 0.5, _half_exp(size)))


def _cosh(x: Tensor) -> Tensor:
    size = ops.abs(x)
    e = ops.exp(size)
    return ops.where(ops.less(size, _FAR), (e + 1 / e) * 0.5, _half_exp(size))


def _asinh(x: Tensor) -> Tensor:
    size = ops.abs(x)
    square = size * size
    near = ops.log1p(size + square / (1 + ops.sqrt(square + 1)))
    return odd(x, ops.where(ops.less(size, _VERY_FAR), near, ops.log(size) + LN2))


def _acosh(x: Tensor) -> Tensor:
    above = x - 1
    near = ops.log1p(above + ops.sqrt(above) * ops.sqrt(above + 2))  # NaN below 1, since sqrt(above) is
    return ops.where(ops.less(_VERY_FAR, x), ops.log(x) + LN2, near)


def _atanh(x: Tensor) -> Tensor:
    size = ops.abs(x)
    return odd(x, ops.log1p(2 * size / (1 - size)) * 0.5)


_function = partial(elementwise, promote=floating, kinds=INEXACT, domain=(-6.0, 6.0), flops=20)

# fmt: off
sinh  = _function("sinh", np.sinh, lambda g, y, x: g * ops.cosh(x),
                  decompose=unless_complex(_sinh, lambda z: (ops.exp(z) - ops.exp(-z)) * 0.5),
                  doc="The hyperbolic sine.")
cosh  = _function("cosh", np.cosh, lambda g, y, x: g * ops.sinh(x),
                  decompose=unless_complex(_cosh, lambda z: (ops.exp(z) + ops.exp(-z)) * 0.5),
                  doc="The hyperbolic cosine.")
tanh  = _function("tanh", np.tanh, lambda g, y, x: g * (1 - y * y), flops=10, doc="The hyperbolic tangent.")
asinh = _function("asinh", np.arcsinh, lambda g, y, x: g / ops.sqrt(x * x + 1),
                  decompose=unless_complex(_asinh, lambda z: ops.log(z + ops.sqrt(1 + 1j * z) * ops.sqrt(1 - 1j * z))),
                  doc="The number of which x is the hyperbolic sine.")
acosh = _function("acosh", np.arccosh, lambda g, y, x: g / ops.sqrt((x - 1) * (x + 1)),
                  decompose=unless_complex(_acosh, lambda z: ops.log(z + ops.sqrt(z + 1) * ops.sqrt(z - 1))),
                  domain=(1.05, 4.0), doc="The number >= 0 of which x is the hyperbolic cosine; NaN below 1.")
atanh = _function("atanh", np.arctanh, lambda g, y, x: g / ((1 - x) * (1 + x)),
                  decompose=unless_complex(_atanh, lambda z: 0.5 * (ops.log(1 + z) - ops.log(1 - z))),
                  domain=(-0.95, 0.95), doc="The number of which x is the hyperbolic tangent; NaN outside [-1, 1].")
# fmt: on

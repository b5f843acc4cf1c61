"""Powers and roots, element by element: the primitives pow and sqrt, and rsqrt and hypot made of them."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from hal import ops
from hal.op import Array, Rng, Sample
from hal.ops.common import FLOATS, INEXACT, NUMBERS, elementwise, floating, numeric

if TYPE_CHECKING:
    from hal.tensor import Tensor


def _pow_by_base(g: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    lower = ops.where(ops.equal(b, 0), b, b - 1)  # a**0 is 1 for every a, zero and NaN included
    return g * (b * ops.pow(a, lower))


def _pow_by_exponent(g: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return g * (y * ops.log(ops.where(ops.equal(a, 0), 1, a)))  # 0**b does not change with b


def _hypot(a: Tensor, b: Tensor) -> Tensor:
    # Divided by the larger side, so that no square overflows.
    a, b = ops.abs(a), ops.abs(b)
    large, small = ops.maximum(a, b), ops.minimum(a, b)
    size = large * ops.sqrt(1 + ops.square(small / ops.where(ops.equal(large, 0), 1, large)))
    return ops.where(ops.logical_or(ops.equal(a, inf), ops.equal(b, inf)), inf, size)


def _numpy_rsqrt(x: Array) -> Array:
    return 1 / np.sqrt(x)


def _powers_of_negatives(rng: Rng) -> Iterator[Sample]:
    grid = np.meshgrid(np.linspace(-2, 2, 9, dtype=np.float32), np.array([-3, -1, 0, 1, 2, 3, 0.5], np.float32))
    yield Sample(tuple(x.reshape(-1) for x in grid), smooth=False)


# fmt: off
pow = elementwise("pow", np.power, (_pow_by_base, _pow_by_exponent),
                  promote=numeric, kinds=NUMBERS, domain=((0.1, 3.0), (-2.0, 2.0)), whole=((-4, 5), (0, 5)),
                  extra=_powers_of_negatives, flops=20,
                  doc="a to the power of b. Integers take exponents of zero or more, and wrap around.")
sqrt = elementwise("sqrt", np.sqrt, lambda g, y, x: g / (2 * y),
                   promote=floating, kinds=INEXACT, domain=(0.1, 4.0), flops=4, doc="The square root; NaN below zero.")
rsqrt = elementwise("rsqrt", _numpy_rsqrt, lambda g, y, x: g * (-0.5 * y * y * y),
                    decompose=lambda x: 1 / ops.sqrt(x), promote=floating, kinds=INEXACT, domain=(0.1, 4.0), flops=5,
                    doc="1 / sqrt(x).")
hypot = elementwise("hypot", np.hypot, (lambda g, y, a, b: g * (a / y), lambda g, y, a, b: g * (b / y)),
                    decompose=_hypot, promote=floating, kinds=FLOATS, flops=10,
                    doc="sqrt(a*a + b*b) without overflow on the way; infinite if either is, even with NaN.")
# fmt: on

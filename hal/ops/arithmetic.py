"""Arithmetic and powers, element by element: the primitives add, mul, div, floor_divide, pow, and what is made of them."""

from __future__ import annotations

import numpy as np

from hal import ops
from hal.ops.common import ALL_KINDS, INEXACT, NUMBERS, REAL_NUMBERS, elementwise, floating, numeric

# fmt: off
add = elementwise("add", np.add, (lambda g, y, a, b: g, lambda g, y, a, b: g),
                  kinds=ALL_KINDS, doc="a + b (for bool: or).")
mul = elementwise("mul", np.multiply, (lambda g, y, a, b: g * ops.conj(b), lambda g, y, a, b: g * ops.conj(a)),
                  kinds=ALL_KINDS, doc="a * b (for bool: and).")
div = elementwise("div", np.true_divide, (lambda g, y, a, b: g / b, lambda g, y, a, b: -g * y / b),
                  promote=floating, kinds=INEXACT, doc="a / b in floating point, also for integers.")
sub = elementwise("sub", np.subtract, (lambda g, y, a, b: g, lambda g, y, a, b: -g),
                  decompose=lambda a, b: a + (-b), kinds=NUMBERS, doc="a - b.")
neg = elementwise("neg", np.negative, lambda g, y, x: -g,
                  decompose=lambda x: ops.mul(x, -1), promote=numeric, kinds=NUMBERS, doc="-x.")
square = elementwise("square", np.square, lambda g, y, x: g * (2 * x),
                     decompose=lambda x: x * x, promote=numeric, kinds=NUMBERS, doc="x * x.")
pow = elementwise("pow", np.power,  # noqa: A001  # the table's name, as in torch and the Array API
                  (lambda g, y, a, b: g * (b * ops.pow(a, b - 1)),
                   lambda g, y, a, b: g * ops.where(ops.equal(y, 0), 0.0, y * ops.log(a))),
                  kinds=REAL_NUMBERS, domain=((0.1, 3.0), (-2.0, 2.0)), special=False, doc="a to the power of b.")
# fmt: on

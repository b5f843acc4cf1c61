"""Other names of ops and functions: those of the Array API standard, and those by which torch's users know them."""

from __future__ import annotations

import math

from hal import ops
from hal.functions import elementwise, joining, shaping

# The Array API's names of ops whose name in the table is torch's.
subtract, multiply, divide, negative = ops.sub, ops.mul, ops.div, ops.neg
true_divide, absolute, bitwise_not, bitwise_invert = ops.div, ops.abs, ops.bitwise_invert, ops.bitwise_invert
arcsin, arccos, arctan, arctan2 = ops.asin, ops.acos, ops.atan, ops.atan2
arcsinh, arccosh, arctanh = ops.asinh, ops.acosh, ops.atanh
eq, ne, lt, le, gt, ge = (
    ops.equal, ops.not_equal, ops.less, ops.less_equal, ops.greater, ops.greater_equal,
)  # fmt: skip
clamp = elementwise.clip
cat = concatenate = joining.concat
movedim, swapaxes, swapdims = shaping.moveaxis, shaping.transpose, shaping.transpose

e, pi, inf, nan, newaxis = math.e, math.pi, math.inf, math.nan, None

"""Other names of ops and functions: those of the Array API standard, and those by which torch's users know them."""

from __future__ import annotations

import math

from hal import ops
from hal.dtypes import float16, float32, float64, int16, int32, int64
from hal.functions import elementwise, joining, shaping
from hal.recording import no_grad

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

# torch's names of dtypes. `hal.float` is the dtype; Python's float stays what it is everywhere else.
half, float, double, short, int, long = float16, float32, float64, int16, int32, int64
inference_mode = no_grad

e, pi, inf, nan, newaxis = math.e, math.pi, math.inf, math.nan, None

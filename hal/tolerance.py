"""Published accuracy limits for elementwise functions, in ULP: the full profile of OpenCL C 3.0.

Source: OpenCL C 3.0 specification, "Relative Error as ULPs", single (full profile), half and double precision
tables. Zero means correctly rounded. bfloat16 is not in those tables: a kernel that computes in float32 and
rounds once is within 1.
"""

from __future__ import annotations

from hal.op import Tolerance

_SOURCE = "OpenCL C 3.0, relative error as ULPs, full profile"

# fmt: off
#           float32 float16 float64
_OPENCL = {
    "div":        (2.5, 1,   0),   "reciprocal": (2.5, 1,   0),
    "sqrt":       (3,   1.5, 0),   "rsqrt":      (2,   1,   2),   "cbrt":  (2, 2, 2),
    "exp":        (3,   2,   3),   "exp2":       (3,   2,   3),   "expm1": (3, 2, 3),
    "log":        (3,   2,   3),   "log2":       (3,   2,   3),   "log10": (3, 2, 3),  "log1p": (2, 2, 2),
    "pow":        (16,  4,   16),  "hypot":      (4,   2,   4),
    "sin":        (4,   2,   4),   "cos":        (4,   2,   4),   "tan":   (5, 2, 5),
    "asin":       (4,   2,   4),   "acos":       (4,   2,   4),   "atan":  (5, 2, 5),  "atan2": (6, 2, 6),
    "sinh":       (4,   2,   4),   "cosh":       (4,   2,   4),   "tanh":  (5, 2, 5),
    "asinh":      (4,   2,   4),   "acosh":      (4,   2,   4),   "atanh": (5, 2, 5),
    "erf":        (16,  4,   16),  "erfc":       (16,  4,   16),
}
# fmt: on


def opencl(name: str) -> Tolerance:
    """The limit for the function `name`; functions that are not in the table are exact (0 ULP)."""
    float32, float16, float64 = _OPENCL.get(name, (0, 0, 0))
    return Tolerance(float32, float16, float64, max(1.0, float16) if name in _OPENCL else 0, source=_SOURCE)


_WEBNN_SOURCE = "WebNN, web-platform-tests, in ULP (float64 as float32)"

# fmt: off
#               float32 float16
_WEBNN = {
    "elu":         (18, 18), "gelu":      (18, 18), "softplus": (18, 18), "sigmoid": (34, 10),
    "hardSigmoid": (2, 2),   "hardSwish": (4, 4),   "softsign": (3, 3),   "leakyRelu": (1, 2), "prelu": (1, 1),
}
# fmt: on


def webnn(name: str) -> Tolerance:
    """The limit that WebNN's tests set for the operator `name`, which OpenCL does not have.

    Those tests draw ordinary numbers. For all others the limit is a mixed one: so near to the function of an input
    that is off by its last place. A function that falls steeply (gelu far below zero) cannot be held to more.
    """
    float32, float16 = _WEBNN[name]
    return Tolerance(float32, float16, float32, float16, source=_WEBNN_SOURCE, conditioned=True)

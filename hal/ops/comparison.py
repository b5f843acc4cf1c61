"""Comparisons, element by element: the primitives less and equal, and what is made of them. NaN equals nothing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from hal import ops
from hal.ops.common import ALL_KINDS, REAL_KINDS, bool_result, elementwise

if TYPE_CHECKING:
    from hal.tensor import Tensor


def _less_equal(a: Tensor, b: Tensor) -> Tensor:
    return ops.logical_or(ops.less(a, b), ops.equal(a, b))


_compare = partial(elementwise, result=bool_result, kinds=REAL_KINDS, wide=False, whole=(-2, 3),
                   no_gradient="the result of a comparison is bool")  # fmt: skip

# fmt: off
less          = _compare("less", np.less, doc="a < b.")
equal         = _compare("equal", np.equal, kinds=ALL_KINDS, doc="a == b.")
less_equal    = _compare("less_equal", np.less_equal, decompose=_less_equal, doc="a <= b.")
greater       = _compare("greater", np.greater, decompose=lambda a, b: ops.less(b, a), doc="a > b.")
greater_equal = _compare("greater_equal", np.greater_equal, decompose=lambda a, b: ops.less_equal(b, a), doc="a >= b.")
not_equal     = _compare("not_equal", np.not_equal, decompose=lambda a, b: ops.logical_not(ops.equal(a, b)),
                         kinds=ALL_KINDS, doc="a != b.")
# fmt: on

"""Logic, element by element: every number but zero counts as true, NaN included. Made of bitwise_and and equal."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from hal import dtypes, ops
from hal.ops.common import ALL_KINDS, bool_result, elementwise

if TYPE_CHECKING:
    from hal.tensor import Tensor


def _true(x: Tensor) -> Tensor:
    return x if x.dtype is dtypes.bool_ else ops.not_equal(x, 0)


_logic = partial(elementwise, result=bool_result, kinds=ALL_KINDS, wide=False, whole=(-1, 2),
                 no_gradient="the result is bool")  # fmt: skip

# fmt: off
logical_not = _logic("logical_not", np.logical_not, decompose=lambda x: ops.equal(x, 0), doc="Whether x is zero.")
logical_and = _logic("logical_and", np.logical_and, decompose=lambda a, b: ops.bitwise_and(_true(a), _true(b)),
                     doc="Whether neither a nor b is zero.")
logical_or  = _logic("logical_or", np.logical_or, decompose=lambda a, b: ops.add(_true(a), _true(b)),
                     doc="Whether a or b is not zero.")
logical_xor = _logic("logical_xor", np.logical_xor, decompose=lambda a, b: ops.not_equal(_true(a), _true(b)),
                     doc="Whether one of a and b is zero and the other is not.")
# fmt: on

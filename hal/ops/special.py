"""The error function and its complement, from polynomials as accurate as the dtype asks for."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from hal import dtypes, ops
from hal.op import Array
from hal.ops.common import FLOATS, elementwise, floating, horner, odd

if TYPE_CHECKING:
    from hal.tensor import Tensor

# erf(x) / x as a polynomial in x**2 for |x| <= 1: relative errors 2**-29.6 and 2**-56.9.
# All fits here: least relative error by Remez's exchange in 60 digits; the float32 ones serve the halves too.
ERF = {
    dtypes.float32: (
        7.853877531619132e-05, -0.0008010198262436548, 0.005188328186418862, -0.02685381219099736,
        0.11283585154976807, -0.3761262582492003, 1.1283791657268232,
    ),
    dtypes.float64: (
        -7.779460911463882e-10, 1.3710977426754569e-08, -1.6206313353603884e-07, 1.644713156008381e-06,
        -1.4924712304983726e-05, 0.00012055293577292792, -0.0008548325929337175, 0.0052239776061191925,
        -0.02686617064311159, 0.11283791670944186, -0.3761263890318352, 1.1283791670955126,
    ),
}  # fmt: skip

# exp(x**2) erfc(x) (1 + 2 x) as a polynomial in (x - 3) / (x + 3), for x from 0 to where erfc(x) is no longer
# a number other than zero: relative errors 2**-29 and 2**-55.4.
ERFC = {
    dtypes.float32: (
        -0.0002681283062018202, -0.0007775842522932441, 0.00200181224345633, 0.002567377783811461,
        -0.023797530455239864, 0.06829576733618756, -0.11927097519050617, 0.1296464145435074,
        -0.04756239945689216, -0.1356211393009376, 1.2530080591223784,
    ),
    dtypes.float64: (
        -3.981259468284203e-09, -7.992487253616313e-09, 3.2432211992504576e-08, 9.015896466471721e-08,
        -1.309576355404225e-07, -6.025547381053403e-07, 3.494430510449371e-07, 3.462023520783222e-06,
        -7.282013955098823e-07, -2.0095653856915843e-05, 4.948511093759096e-06, 0.00012509784532677905,
        -0.00010515961064027561, -0.0007798319773831104, 0.0018886903351756697, 0.0025293917810108213,
        -0.023770514916732113, 0.06830802734628842, -0.11927366341539404, 0.1296451587026905,
        -0.04756229435344914, -0.13562110612458053, 1.2530080582697296,
    ),
}  # fmt: skip
ERFC_ZERO = {dtypes.float32: 10.1, dtypes.float64: 28.0}


def numpy_erf(x: Array) -> Array:
    """erf in float64."""
    return np.vectorize(math.erf, [np.float64])(x)


def numpy_erfc(x: Array) -> Array:
    """erfc in float64."""
    return np.vectorize(math.erfc, [np.float64])(x)


def _erfc_of_size(size: Tensor) -> Tensor:
    """erfc for numbers that are not negative."""
    size = ops.minimum(size, ERFC_ZERO[size.dtype])
    # exp(-x * x) would carry the rounding of x * x, so x is cut: the square of the front has no rounding.
    front = ops.floor(size * 16) * 0.0625
    gauss = ops.exp(-front * front) * ops.exp((front - size) * (front + size))
    return gauss * (horner((size - 3) / (size + 3), ERFC[size.dtype]) / (1 + 2 * size))


def _erf(x: Tensor) -> Tensor:
    size = ops.abs(x)
    near = x * horner(x * x, ERF[x.dtype])
    return ops.where(ops.less(size, 1), near, odd(x, 1 - _erfc_of_size(size)))


def _erfc(x: Tensor) -> Tensor:
    y = _erfc_of_size(ops.abs(x))
    return ops.where(ops.less(x, 0), 2 - y, y)


_SLOPE = 2 / math.sqrt(math.pi)
_function = partial(elementwise, promote=floating, kinds=FLOATS, domain=(-4.0, 4.0), flops=40)

# fmt: off
erf  = _function("erf", numpy_erf, lambda g, y, x: g * (_SLOPE * ops.exp(-x * x)),
                 decompose=_erf, doc="2 / sqrt(pi) times the integral of exp(-t*t) from 0 to x.")
erfc = _function("erfc", numpy_erfc, lambda g, y, x: g * (-_SLOPE * ops.exp(-x * x)),
                 decompose=_erfc, doc="1 - erf(x), accurate where that is small.")
# fmt: on

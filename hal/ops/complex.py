"""Parts of complex numbers: conj, real, imag. Of a real number they are itself, itself, and zero.

Complex numbers are computed with and have no gradients, so no gradient conjugates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import ops
from hal.errors import DTypeError
from hal.op import Op
from hal.ops.arithmetic import real_result
from hal.ops.common import NUMBERS, REAL_NUMBERS, elementwise, numeric, zero

if TYPE_CHECKING:
    from hal.tensor import Tensor


def _conj(x: Tensor) -> Tensor:
    return x if x.dtype.kind != "complex" else ops.real(x) - 1j * ops.imag(x)


def _only_of_reals(name: str, decompose: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def decompose_reals(x: Tensor) -> Tensor:
        if x.dtype.kind == "complex":
            raise DTypeError(
                f"{name} of {x.dtype.name} needs a kernel on {x.device}, since no primitive takes a complex number "
                "apart: a backend that declares complex dtypes must have kernels for real and imag"
            )
        return decompose(x)

    return decompose_reals


def _part(name: str, function: Any, gradient: Any, decompose: Callable[[Tensor], Tensor], doc: str) -> Op:
    return elementwise(
        name, function, gradient, decompose=_only_of_reals(name, decompose), kinds=NUMBERS, sampled=REAL_NUMBERS,
        promote=numeric, result=real_result, wide=False, flops=0, doc=doc,
    )  # fmt: skip


# fmt: off
conj = elementwise("conj", np.conjugate, lambda g, y, x: g, decompose=_conj, promote=numeric, kinds=NUMBERS,
                   sampled=REAL_NUMBERS, wide=False, flops=0,
                   doc="The complex conjugate. A real tensor is its own, and is returned as it is.")
real = _part("real", np.real, lambda g, y, x: g, lambda x: x,
             "The real part. A real tensor is its own, and is returned as it is.")
imag = _part("imag", np.imag, zero, zero,
             "The imaginary part; zeros for a real tensor.")
# fmt: on

"""Conversion between element types: the primitive cast."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from hal import dtypes, ops
from hal.dtypes import DType
from hal.errors import DTypeError
from hal.op import Array, Grads, Op, Rng, Sample
from hal.ops.common import LARGE, integers, quiet, uniform
from hal.spec import Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor


def _infer(x: Spec, *, dtype: DType) -> Spec:
    if x.dtype.kind == "complex" and dtype.kind not in ("complex", "bool"):
        raise DTypeError(
            f"cast cannot make {dtype.name} of {x.dtype.name} without losing a part: "
            "take hal.real, hal.imag or hal.abs first"
        )
    return Spec(x.shape, dtype)


def _reference(x: Array, *, dtype: DType) -> Array:
    return x.astype(dtype.numpy)


def _gradient(g: Tensor, out: Tensor, x: Tensor, *, dtype: DType) -> Grads:
    if not (dtype.is_inexact and x.dtype.is_inexact):
        return (None,)
    if dtype.kind == "complex" and x.dtype.kind == "float":
        g = ops.real(g)
    return (ops.cast(g, dtype=x.dtype),)


def _samples(rng: Rng) -> Iterator[Sample]:
    for dtype in (dtypes.float32, dtypes.float64):
        for shape in ((2, 3), (), (0, 3)):
            yield Sample((uniform(rng, shape),), {"dtype": dtype}, smooth=dtype is dtypes.float64)  # else it rounds
    yield Sample((uniform(rng, (4, 6))[::-1, ::2].T,), {"dtype": dtypes.float64})
    for dtype in (dtypes.int8, dtypes.int32, dtypes.int64, dtypes.bool_, dtypes.float16, dtypes.bfloat16):
        yield Sample((uniform(rng, (5, 7), -100, 100),), {"dtype": dtype}, smooth=False)  # towards zero
    for dtype in (dtypes.uint8, dtypes.uint64, dtypes.float16, dtypes.complex64):
        yield Sample((uniform(rng, (LARGE,), 0, 200),), {"dtype": dtype}, smooth=False)
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-30, 3e30, 65519, 65520], np.float32)
    for dtype in (dtypes.bool_, dtypes.float16, dtypes.bfloat16, dtypes.float32, dtypes.float64):
        yield Sample((odd,), {"dtype": dtype}, smooth=False)
    for dtype in (dtypes.uint8, dtypes.int8, dtypes.uint32, dtypes.bool_, dtypes.float32, dtypes.int64):  # wraps around
        yield Sample((integers(rng, (20,), -(2**31), 2**31, np.int64),), {"dtype": dtype}, smooth=False, exact=True)
    for dtype in (dtypes.int64, dtypes.uint8, dtypes.float32, dtypes.complex64):
        yield Sample((rng.random((3, 4)) < 0.5,), {"dtype": dtype}, smooth=False, exact=True)
    pairs = (rng.normal(size=(2, 3)) + 1j).astype(np.complex64)
    yield Sample((pairs,), {"dtype": dtypes.complex128}, smooth=False, exact=True)


cast = Op(
    "cast", _infer, quiet(_reference), _samples, _gradient, kind="elementwise",
    doc="The elements in another dtype. Floats become integers towards zero; integers wrap around; not zero is True. "
        "A float that the integer cannot hold, NaN included, becomes whatever the device makes of it.",
)  # fmt: skip

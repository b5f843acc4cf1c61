"""Making arrays from nothing: iota, which counts, and full, which repeats one value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from hal import dtypes, ops
from hal.dtypes import DType
from hal.errors import DTypeError, ShapeError
from hal.op import Array, Cost, Grads, Op, Rng, Sample
from hal.ops.common import REAL_NUMBERS
from hal.spec import Shape, Spec

if TYPE_CHECKING:
    from hal.device import Device
    from hal.tensor import Tensor


def check_sizes(who: str, shape: Shape) -> None:
    """Raise ShapeError if a size is negative."""
    if min(shape, default=0) < 0:
        raise ShapeError(f"{who} needs sizes of zero or more, got {shape}")


def _infer_iota(*, size: int, dtype: DType, device: Device | None = None) -> Spec:
    check_sizes("iota", (size,))
    if dtype.kind not in REAL_NUMBERS:
        raise DTypeError(f"iota counts in integers or floating-point numbers, got {dtype.name}; count first, then cast")
    return Spec((size,), dtype)


def _iota(*, size: int, dtype: DType, device: Device | None = None) -> Array:
    return np.arange(size).astype(dtype.numpy)


def _samples_of_iota(rng: Rng) -> Iterator[Sample]:
    for dtype in (dtypes.int64, dtypes.int32, dtypes.uint8, dtypes.uint32, dtypes.float32, dtypes.float64):
        for size in (0, 1, 7):
            yield Sample((), {"size": size, "dtype": dtype}, smooth=False)
    yield Sample((), {"size": 70_000, "dtype": dtypes.int64}, smooth=False)


iota = Op(
    "iota", _infer_iota, _iota, _samples_of_iota, cost=lambda *, out, **settings: Cost(out.size, out.nbytes),
    kind="creation", no_gradient="it has no inputs",
    doc="0, 1, 2, ... below `size`. The one op without inputs: its setting `device` says where it is made.",
)  # fmt: skip


def _infer_full(value: Spec, *, shape: Shape) -> Spec:
    check_sizes("full", shape)
    if value.shape != ():
        raise ShapeError(f"full repeats a single value, got one of shape {value.shape}; broadcast_to repeats arrays")
    return Spec(shape, value.dtype)


def _full(value: Array, *, shape: Shape) -> Array:
    return np.full(shape, value)


def _gradient_of_full(g: Tensor, out: Tensor, value: Tensor, *, shape: Shape) -> Grads:
    return (ops.sum(g),)


def _samples_of_full(rng: Rng) -> Iterator[Sample]:
    for shape in ((2, 3), (), (0, 3), (1, 1, 5)):
        yield Sample((np.array(rng.normal(), np.float32),), {"shape": shape})
    for value in (np.float32(np.nan), np.float32(-np.inf), np.float32(-0.0)):
        yield Sample((np.array(value),), {"shape": (70_000,)}, smooth=False)
    for integer in (np.int64(2**62 + 1), np.int8(-3), np.uint8(200), np.bool_(True), np.complex64(1 + 2j)):
        yield Sample((np.array(integer),), {"shape": (3, 2)}, smooth=False, exact=True)


full = Op(
    "full", _infer_full, _full, _samples_of_full, _gradient_of_full,
    cost=lambda value, *, out, **settings: Cost(0, out.nbytes), kind="creation",
    doc="A fresh array of `shape` with one value everywhere; the value is data, so a new one costs no new decision.",
)  # fmt: skip

"""Facts about element types: limits, kinds, promotion, conversion. Array API 2024.12, "Data Type Functions"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from hal import dtypes, ops
from hal.dtypes import DType
from hal.errors import DTypeError
from hal.functions.arguments import is_tensor

if TYPE_CHECKING:
    from hal.device import Device
    from hal.tensor import Tensor

_KINDS = {
    "bool": ("bool",),
    "signed integer": ("int",),
    "unsigned integer": ("uint",),
    "integral": ("int", "uint"),
    "real floating": ("float",),
    "complex floating": ("complex",),
    "numeric": ("int", "uint", "float", "complex"),
}


@dataclass(frozen=True)
class FloatInfo:
    """Limits of a floating-point type. Source: Array API, finfo; torch.finfo."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: DType

    @property
    def tiny(self) -> float:
        """torch's name for the smallest normal number."""
        return self.smallest_normal


@dataclass(frozen=True)
class IntegerInfo:
    """Limits of an integer type. Source: Array API, iinfo; torch.iinfo."""

    bits: int
    max: int
    min: int
    dtype: DType


def _dtype_of(what: Any) -> DType:
    return what.dtype if is_tensor(what) else dtypes.dtype(what)


def finfo(dtype: Any, /) -> FloatInfo:
    """The limits of a floating-point type, or of the parts of a complex one. Source: Array API, finfo.

    Raises:
        DTypeError: it is neither.
    """
    given = _dtype_of(dtype)
    if not given.is_inexact:
        raise DTypeError(f"finfo takes floating-point types, got {given.name}: use iinfo")
    part = {"complex64": dtypes.float32, "complex128": dtypes.float64}.get(given.name, given)
    info = ml_dtypes.finfo(part.numpy)
    limits = (float(info.eps), float(info.max), float(info.min), float(info.smallest_normal))
    return FloatInfo(8 * part.itemsize, *limits, part)


def iinfo(dtype: Any, /) -> IntegerInfo:
    """The limits of an integer type. Source: Array API, iinfo.

    Raises:
        DTypeError: it is none.
    """
    given = _dtype_of(dtype)
    if given.kind not in ("int", "uint"):
        raise DTypeError(f"iinfo takes integer types, got {given.name}: use finfo")
    info = np.iinfo(given.numpy)
    return IntegerInfo(info.bits, int(info.max), int(info.min), given)


def isdtype(dtype: Any, kind: Any) -> bool:
    """Whether a type is of a kind (`"integral"`, `"real floating"`, …), is another type, or any of a tuple of these.

    Raises:
        DTypeError: no such kind.

    Source: Array API, isdtype.
    """
    if isinstance(kind, tuple):
        return any(isdtype(dtype, k) for k in kind)
    given = dtypes.dtype(dtype)
    if isinstance(kind, str) and kind in _KINDS:
        return given.kind in _KINDS[kind]
    if isinstance(kind, DType):
        return given is kind
    raise DTypeError(f"isdtype takes a dtype, a tuple, or one of {', '.join(map(repr, _KINDS))}, got {kind!r}")


def can_cast(from_: Any, to: Any, /) -> bool:
    """Whether promotion takes the first type (or the tensor's) to the second. Source: Array API, can_cast."""
    target = dtypes.dtype(to)
    return dtypes.promote(_dtype_of(from_), target) is target


def result_type(*arrays_and_dtypes: Any) -> DType:
    """The type of an operation on these tensors, types and Python numbers; numbers are weakly typed.

    Raises:
        DTypeError: nothing but numbers.

    Source: Array API, result_type.
    """
    numbers = [a for a in arrays_and_dtypes if isinstance(a, (bool, int, float, complex))]
    typed = [_dtype_of(a) for a in arrays_and_dtypes if not isinstance(a, (bool, int, float, complex))]
    if not typed:
        raise DTypeError("result_type needs a tensor or a dtype among its arguments, got only Python numbers")
    out = dtypes.result_type(*typed)
    for number in numbers:
        out = dtypes.with_scalar(out, number)
    return out


def promote_types(a: Any, b: Any) -> DType:
    """The type that both promote to. Source: torch.promote_types."""
    return dtypes.promote(dtypes.dtype(a), dtypes.dtype(b))


def astype(x: Tensor, dtype: Any, /, *, copy: bool = True, device: Device | str | None = None) -> Tensor:
    """`x` in another type; a copy even if it has that type, unless copy=False. Source: Array API, astype."""
    return x.to(device, dtype=dtypes.dtype(dtype), copy=copy)


def is_floating_point(x: Tensor, /) -> bool:
    """Whether the elements are real floating-point numbers. Source: torch.is_floating_point."""
    return x.dtype.is_floating


def is_complex(x: Tensor, /) -> bool:
    """Whether the elements are complex. Source: torch.is_complex."""
    return x.dtype.kind == "complex"


def numel(x: Tensor, /) -> int:
    """How many elements there are. Source: torch.numel."""
    return x.spec.size


def view_as_real(x: Tensor, /) -> Tensor:
    """Complex numbers as pairs along a new last axis. Source: torch.view_as_real."""
    return ops.stack(ops.real(x), ops.imag(x), axis=x.ndim)

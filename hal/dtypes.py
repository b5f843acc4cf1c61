"""Element types: one `DType` value for each, and the promotion rules of the Array API standard."""

from __future__ import annotations

from functools import cache, reduce
from typing import Any, Literal

import ml_dtypes
import numpy as np

from hal.errors import DTypeError

Kind = Literal["bool", "int", "uint", "float", "complex"]


class DType:
    """An element type. One object for each name, so `is` and `==` mean the same.

    Attributes:
        name: as in NumPy, such as `float32`.
        numpy: the NumPy dtype with the same layout (bfloat16 from ml_dtypes).
        kind: `bool`, `int`, `uint`, `float` or `complex`.
        itemsize: bytes in an element.
    """

    __slots__ = ("is_floating", "itemsize", "kind", "name", "numpy")

    def __init__(self, name: str, kind: Kind, numpy: np.dtype[Any]) -> None:
        self.name = name
        self.kind: Kind = kind
        self.numpy = numpy
        self.itemsize = int(numpy.itemsize)
        self.is_floating = kind == "float"

    def __repr__(self) -> str:
        return f"hal.{self.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return dtype, (self.name,)

    @property
    def is_inexact(self) -> bool:
        """Whether this is a real or complex floating-point type."""
        return self.kind in ("float", "complex")

    @property
    def is_floating_point(self) -> bool:
        """torch's name for `is_floating`."""
        return self.is_floating


bool_ = DType("bool", "bool", np.dtype(np.bool_))
int8 = DType("int8", "int", np.dtype(np.int8))
int16 = DType("int16", "int", np.dtype(np.int16))
int32 = DType("int32", "int", np.dtype(np.int32))
int64 = DType("int64", "int", np.dtype(np.int64))
uint8 = DType("uint8", "uint", np.dtype(np.uint8))
uint16 = DType("uint16", "uint", np.dtype(np.uint16))
uint32 = DType("uint32", "uint", np.dtype(np.uint32))
uint64 = DType("uint64", "uint", np.dtype(np.uint64))
float16 = DType("float16", "float", np.dtype(np.float16))
bfloat16 = DType("bfloat16", "float", np.dtype(ml_dtypes.bfloat16))
float32 = DType("float32", "float", np.dtype(np.float32))
float64 = DType("float64", "float", np.dtype(np.float64))
complex64 = DType("complex64", "complex", np.dtype(np.complex64))
complex128 = DType("complex128", "complex", np.dtype(np.complex128))

ALL: tuple[DType, ...] = (
    bool_, int8, int16, int32, int64, uint8, uint16, uint32, uint64,
    float16, bfloat16, float32, float64, complex64, complex128,
)  # fmt: skip
REAL: tuple[DType, ...] = tuple(d for d in ALL if d.kind != "complex")
FLOATS: tuple[DType, ...] = (float16, bfloat16, float32, float64)
DEFAULT_FLOAT = float32
DEFAULT_INT = int64

_BY_NAME = {d.name: d for d in ALL} | {
    "half": float16, "float": float32, "double": float64, "int": int32, "long": int64, "short": int16,
}  # fmt: skip
_BY_NUMPY = {d.numpy: d for d in ALL}
_BY_PYTHON: dict[type, DType] = {bool: bool_, int: DEFAULT_INT, float: DEFAULT_FLOAT, complex: complex64}


def of(numpy: np.dtype[Any]) -> DType:
    """The `DType` of a NumPy dtype.

    Raises:
        DTypeError: hal has no such element type (strings, objects, dates, big-endian numbers).
    """
    found = _BY_NUMPY.get(numpy)
    if found is None:
        raise DTypeError(f"hal has no dtype like NumPy's {numpy}; it has {', '.join(d.name for d in ALL)}")
    return found


def dtype(what: Any) -> DType:
    """The `DType` meant by a `DType`, a name, a NumPy dtype or type, or Python's bool, int, float, complex."""
    if isinstance(what, DType):
        return what
    if isinstance(what, str) and what.removeprefix("hal.") in _BY_NAME:
        return _BY_NAME[what.removeprefix("hal.")]
    if isinstance(what, type) and what in _BY_PYTHON:
        return _BY_PYTHON[what]
    try:
        return of(np.dtype(what))
    except TypeError:
        names = ", ".join(d.name for d in ALL)
        raise DTypeError(f"a dtype was needed, got {what!r}; the dtypes are {names}") from None


@cache
def promote(a: DType, b: DType) -> DType:
    """The type that holds both: the Array API's table, with torch's answer where the standard has none.

    An integer with a floating type gives the floating type; uint64 with a signed type gives float32.

    Source: Array API 2024.12, "Type Promotion Rules"; torch, "Tensor Attributes", torch.promote_types.
    """
    if a is b:
        return a
    ranks = ("bool", "uint", "int", "float", "complex")
    if ranks.index(a.kind) > ranks.index(b.kind):
        a, b = b, a
    if a.kind == "bool" or (a.kind == b.kind and {a, b} != {float16, bfloat16}):
        return b if b.itemsize >= a.itemsize or a.kind == "bool" else a
    if {a, b} == {float16, bfloat16}:
        return float32
    if b.kind == "float":
        return b
    if b.kind == "complex":
        return complex128 if a is float64 else b
    if a.itemsize < b.itemsize:  # unsigned with signed
        return b
    wider = {1: int16, 2: int32, 4: int64}
    return wider.get(a.itemsize, DEFAULT_FLOAT)


def result_type(*dtypes: DType) -> DType:
    """The type that all of `dtypes` promote to."""
    return reduce(promote, dtypes)


def with_scalar(dtype: DType, scalar: bool | int | float | complex) -> DType:
    """The type of an operation between an array of `dtype` and a Python scalar, which is weakly typed.

    Source: Array API 2024.12, "Mixing arrays with Python scalars"; where that is undefined (an integer array
    with a float), torch's rule: the default type of the scalar's kind.
    """
    kind = dtype.kind
    if isinstance(scalar, bool):
        return dtype
    if isinstance(scalar, int):
        return DEFAULT_INT if kind == "bool" else dtype
    if isinstance(scalar, float):
        return dtype if kind in ("float", "complex") else DEFAULT_FLOAT
    if kind == "complex":
        return dtype
    return complex128 if dtype is float64 else complex64

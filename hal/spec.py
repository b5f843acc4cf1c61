"""Specs: the shape and dtype of an array as a value, and the rules by which shapes fit together.

A spec is interned: equal specs are the same object, so a dictionary keyed by specs costs no more than
one keyed by small integers. That is what makes one cached decision per (op, specs) cheap.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from math import prod
from typing import Any
from weakref import WeakValueDictionary

from hal.dtypes import DType
from hal.errors import ShapeError

Shape = tuple[int, ...]


class Spec:
    """Shape and dtype of an array.

    >>> from hal import dtypes
    >>> Spec((2, 3), dtypes.float32)
    Spec((2, 3), float32)
    >>> Spec((2, 3), dtypes.float32) is Spec((2, 3), dtypes.float32)
    True
    """

    __slots__ = ("__weakref__", "dtype", "nbytes", "ndim", "shape", "size")

    shape: Shape
    dtype: DType
    ndim: int
    size: int
    nbytes: int

    def __new__(cls, shape: Shape, dtype: DType) -> Spec:
        key = (shape, dtype)
        found = _interned.get(key)
        if found is not None:
            return found
        with _lock:  # two threads must not make two objects of one value
            found = _interned.get(key)
            if found is not None:
                return found
            spec = object.__new__(cls)
            spec.shape, spec.dtype, spec.ndim, spec.size = shape, dtype, len(shape), prod(shape)
            spec.nbytes = spec.size * dtype.itemsize
            _interned[key] = spec
        return spec

    def __repr__(self) -> str:
        return f"Spec({self.shape}, {self.dtype.name})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Spec, (self.shape, self.dtype)

    def with_shape(self, shape: Iterable[int]) -> Spec:
        """The same dtype in another shape."""
        return Spec(tuple(shape), self.dtype)

    def with_dtype(self, dtype: DType) -> Spec:
        """The same shape with another dtype."""
        return Spec(self.shape, dtype)


_interned: WeakValueDictionary[tuple[Shape, DType], Spec] = WeakValueDictionary()
_lock = threading.Lock()


def broadcast_shapes(who: str, *shapes: Shape) -> Shape:
    """The shape that all of `shapes` broadcast to; `who` is named in the error.

    Raises:
        ShapeError: two sizes of one axis differ and neither is 1.
    """
    out: list[int] = []
    for i in range(max((len(s) for s in shapes), default=0)):
        size = 1
        for shape in shapes:
            n = shape[-1 - i] if i < len(shape) else 1
            if n != 1 and size != 1 and n != size:
                listed = " and ".join(map(str, shapes))
                raise ShapeError(
                    f"{who} needs shapes that broadcast, got {listed}: "
                    f"axis {-1 - i} has sizes {size} and {n}; make them equal, or one of them 1"
                )
            size = n if size == 1 else size
        out.append(size)
    return tuple(reversed(out))


def normalize_axis(who: str, axis: int, ndim: int) -> int:
    """`axis` counted from the front, for an array of `ndim` axes.

    Raises:
        ShapeError: there is no such axis.
    """
    if not -ndim <= axis < ndim:
        raise ShapeError(f"{who} got axis {axis}, but its input has {ndim} axes: use {-ndim} to {ndim - 1}")
    return axis % ndim


def normalize_axes(who: str, axis: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    """The sorted axes meant by `axis`, where None means all.

    Raises:
        ShapeError: an axis does not exist or is named twice.
    """
    if axis is None:
        return tuple(range(ndim))
    axes = tuple(normalize_axis(who, a, ndim) for a in ((axis,) if isinstance(axis, int) else axis))
    if len(set(axes)) != len(axes):
        raise ShapeError(f"{who} got axis {axis}, which names an axis of its {ndim}-axis input twice")
    return tuple(sorted(axes))

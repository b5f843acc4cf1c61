"""x[...]: numbers, slices with any step, None, Ellipsis, masks, and lists or tensors of numbers, as in NumPy and torch.

Numbers, slices and new axes give a view: one slice and one reshape. Masks and lists of numbers give a copy. Where
numbers stand beside lists, torch's rule holds: the numbers are taken first, and then the lists broadcast; the axes
they make stand where the first list stood, or in front if something stands between the lists.

Source: NumPy, "Indexing on ndarrays"; torch, "Tensor indexing API"; Array API 2024.12, "Indexing".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import dtypes, ops
from hal.functions.arguments import is_tensor
from hal.functions.shaping import select
from hal.interop import from_host, host_array
from hal.op import Array
from hal.spec import Shape, broadcast_shapes

if TYPE_CHECKING:
    from hal.tensor import Tensor

Numbers = Any  # an index of several numbers: a tensor, or a NumPy array on its way to be one


@dataclass(slots=True)
class Parsed:
    """What an index means for a tensor.

    Attributes:
        start, stop, step: the slice of each axis; a number is a slice of one element.
        shape: that slice as the result shows it: without the axes of numbers, with new ones, a mask's axes as one.
        lists: masks and lists of numbers, each with its axis of `shape`.
    """

    start: list[int] = field(default_factory=list)
    stop: list[int] = field(default_factory=list)
    step: list[int] = field(default_factory=list)
    shape: list[int] = field(default_factory=list)
    lists: list[tuple[int, Numbers]] = field(default_factory=list)

    def cut(self, start: int, stop: int, step: int) -> None:
        """Take this slice of the next axis."""
        self.start.append(start)
        self.stop.append(stop)
        self.step.append(step)

    def keep(self, sizes: Shape) -> None:
        """Take the whole of the next axes."""
        for n in sizes:
            self.cut(0, n, 1)

    def slice_of(self, x: Tensor) -> Tensor:
        """The slice, as a view that has every axis of `x`."""
        bounds = {"start": tuple(self.start), "stop": tuple(self.stop), "step": tuple(self.step)}
        whole = bounds["stop"] == x.shape and not any(bounds["start"]) and set(bounds["step"]) <= {1}
        return x if whole else ops.slice(x, **bounds)


def parse(x: Tensor, key: Any) -> Parsed:
    """Read an index of `x`.

    Raises:
        IndexError: too many axes, a number out of range, a mask of another shape, or something that is no index.
    """
    items = [_understood(item, x) for item in (key if isinstance(key, tuple) else (key,))]
    axes = sum(_axes(item) for item in items)
    if axes > x.ndim:
        raise IndexError(f"too many indices: {axes} for a tensor with {x.ndim} axes, of shape {x.shape}")
    if sum(item is Ellipsis for item in items) > 1:
        raise IndexError("an index can have one ellipsis (...), got several")
    parsed = Parsed()
    for item in items if any(item is Ellipsis for item in items) else [*items, ...]:
        _read(item, x, parsed, x.ndim - axes)
    return parsed


def _read(item: Any, x: Tensor, parsed: Parsed, rest: int) -> None:
    axis = len(parsed.start)
    if item is None:
        parsed.shape.append(1)
    elif item is Ellipsis:
        parsed.keep(x.shape[axis : axis + rest])
        parsed.shape.extend(x.shape[axis : axis + rest])
    elif isinstance(item, slice):
        bounds = _bounds(item, x.shape[axis])
        parsed.cut(*bounds)
        parsed.shape.append(len(range(*bounds)))
    elif isinstance(item, bool):  # a new axis, which has one element or none
        parsed.lists.append((len(parsed.shape), np.zeros(int(item), np.int64)))
        parsed.shape.append(1)
    elif isinstance(item, int):
        n = x.shape[axis]
        if not -n <= item < n:
            raise IndexError(f"index {item} is out of range for axis {axis} of size {n}")
        parsed.cut(item % n, item % n + 1, 1)
    else:
        sizes = x.shape[axis : axis + _axes(item)]
        if is_mask(item) and item.shape != sizes:
            raise IndexError(
                f"a mask of shape {tuple(item.shape)} does not fit axes {axis} to {axis + len(sizes) - 1} of a tensor "
                f"of shape {x.shape}, whose sizes are {sizes}"
            )
        parsed.lists.append((len(parsed.shape), item))
        parsed.keep(sizes)
        parsed.shape.append(prod(sizes))


def _bounds(item: slice, size: int) -> tuple[int, int, int]:
    try:
        return item.indices(size)
    except (TypeError, ValueError) as error:
        raise IndexError(f"a slice takes whole numbers, and a step that is not 0, got {item}: {error}") from None


def _understood(item: Any, x: Tensor) -> Any:
    """An item of an index as None, Ellipsis, a slice, a Python bool or int, or a tensor or array of them."""
    if item is None or item is Ellipsis or isinstance(item, (slice, int)):
        return item
    if isinstance(item, (list, tuple, range)):
        if _holds_tensors(item):
            from hal.creation import tensor

            item = tensor(list(item), device=x.device)
        else:
            array = np.asarray(item)
            item = array.astype(np.int64) if array.size == 0 else array
    if isinstance(item, np.generic):
        item = np.asarray(item)
    if isinstance(item, np.ndarray):
        kind = item.dtype.kind
    elif is_tensor(item):
        kind = item.dtype.kind[0]
    elif hasattr(item, "__index__"):
        return int(item.__index__())
    else:
        kind = "no index"
    if kind not in ("b", "i", "u"):
        what = getattr(item, "dtype", type(item).__name__)
        raise IndexError(
            f"an index is made of integers, slices, ..., None, and tensors or lists of bool or integers, got {what}"
        )
    if item.ndim == 0 and (isinstance(item, np.ndarray) or kind == "b" or item.device.backend.host_memory):
        return item.item()
    return item


def _holds_tensors(items: Any) -> bool:
    return any(is_tensor(i) or (isinstance(i, (list, tuple)) and _holds_tensors(i)) for i in items)


def is_mask(item: Any) -> bool:
    """Whether an item of an index chooses by truth."""
    return bool(item.dtype in (dtypes.bool_, np.bool_))


def _axes(item: Any) -> int:
    if item is None or item is Ellipsis or isinstance(item, bool):
        return 0
    if isinstance(item, (slice, int)):
        return 1
    return int(item.ndim) if is_mask(item) else 1


# Lists of numbers.


def numbers(item: Numbers, axis: int, size: int, like: Tensor) -> Numbers:
    """A mask or list as numbers from 0 to `size`, checked where that costs no wait for a device."""
    if is_mask(item):
        return np.flatnonzero(host_array(item, "indexing with a mask") if is_tensor(item) else item)
    if is_tensor(item):
        if not item.device.backend.host_memory:
            return item
        item = host_array(item, "indexing")
    if item.size and not (-size <= item.min() and item.max() < size):
        wrong = item.max() if item.max() >= size else item.min()
        raise IndexError(f"index {wrong} is out of range for axis {axis} of size {size}")
    return np.where(item < 0, item + size, item) if item.dtype.kind == "i" and (item < 0).any() else item


def as_tensor(item: Numbers, like: Tensor) -> Tensor:
    """Numbers on the device of `like`."""
    return item if is_tensor(item) else from_host(item, like)


@dataclass(frozen=True, slots=True)
class Gathering:
    """One list of numbers along one axis that stands for several lists along several axes.

    Attributes:
        axes: the order of axes that brings those of the lists together; None where nothing has to move.
        shape: the shape in which they are one.
        axis: that one.
        index: the numbers along it.
    """

    axes: tuple[int, ...] | None
    shape: Shape
    axis: int
    index: Tensor

    def arrange(self, part: Tensor) -> Tensor:
        """`part` with the axes of the lists as one."""
        if self.axes is not None:
            part = ops.permute(part, axes=self.axes)
        return part if part.shape == self.shape else ops.reshape(part, shape=self.shape)

    def restore(self, arranged: Tensor, shape: Shape) -> Tensor:
        """The inverse of `arrange`, for a part of `shape`."""
        if self.axes is None:
            return ops.reshape(arranged, shape=shape)
        moved = ops.reshape(arranged, shape=tuple(shape[a] for a in self.axes))
        return ops.permute(moved, axes=tuple(sorted(range(len(self.axes)), key=self.axes.__getitem__)))


def gathering(parsed: Parsed, x: Tensor) -> Gathering:
    """All lists of an index as one.

    Raises:
        IndexError: a number is out of range.
        ShapeError: the lists do not broadcast.
    """
    shape = tuple(parsed.shape)
    axes = [axis for axis, _ in parsed.lists]
    lists = [numbers(item, axis, shape[axis], x) for axis, item in parsed.lists]
    if len(axes) == 1:
        return Gathering(None, shape, axes[0], as_tensor(lists[0], x))
    rest = [i for i in range(len(shape)) if i not in axes]
    first = axes[0] if axes == list(range(axes[0], axes[0] + len(axes))) else 0
    order = (*rest[:first], *axes, *rest[first:])
    sizes = [shape[a] for a in axes]
    merged = (*(shape[i] for i in rest[:first]), prod(sizes), *(shape[i] for i in rest[first:]))
    broadcast_shapes("indexing", *(tuple(i.shape) for i in lists))  # raises, with the shapes
    strides = [prod(sizes[k + 1 :]) for k in range(len(sizes))]
    in_place = order == tuple(range(len(shape)))
    return Gathering(None if in_place else order, merged, first, _joined(lists, sizes, strides, x))


def _joined(lists: list[Numbers], sizes: list[int], strides: list[int], x: Tensor) -> Tensor:
    if all(isinstance(item, np.ndarray) for item in lists):
        total: Array = np.zeros((), np.int64)
        for item, stride in zip(lists, strides, strict=True):
            total = total + item.astype(np.int64) * stride
        return from_host(total, x)
    out: Tensor | None = None
    for item, size, stride in zip(lists, sizes, strides, strict=True):
        index = ops.cast(as_tensor(item, x), dtype=dtypes.int64)
        index = ops.mul(ops.where(ops.less(index, 0), ops.add(index, size), index), stride)
        out = index if out is None else ops.add(out, index)
    assert out is not None
    return out


def getitem(x: Tensor, key: Any) -> Tensor:
    """x[key]. A view for numbers, slices and None; a copy for masks and lists.

    Raises:
        IndexError: too many axes, a number out of range, a mask of another shape, or something that is no index.
        ShapeError: lists of numbers that do not broadcast.
    """
    if key.__class__ is int and x.spec.ndim:  # the index of loops, in fewer steps
        return select(x, 0, key)
    parsed = parse(x, key)
    part = parsed.slice_of(x)
    shape = tuple(parsed.shape)
    if part is x or part.shape != shape:
        part = ops.reshape(part, shape=shape)
    if not parsed.lists:
        return part
    found = gathering(parsed, x)
    return ops.take(found.arrange(part), found.index, axis=found.axis)

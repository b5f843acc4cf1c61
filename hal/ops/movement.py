"""Moving elements without changing them: the primitives reshape, permute, broadcast_to, slice and pad.

A device that has views may answer the first four with a view of the input's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import chain
from math import isfinite, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import ops
from hal.errors import ShapeError
from hal.op import Array, Cost, Grads, Op, Rng, Sample
from hal.ops.common import LARGE, integers, unbroadcast, uniform
from hal.ops.creation import check_sizes
from hal.ops.steps import cut, widen
from hal.spec import Shape, Spec, normalize_axes

if TYPE_CHECKING:
    from hal.tensor import Tensor


def cost_of_view(*specs: Spec, out: Spec, **settings: Any) -> Cost:
    return Cost(0, 0)


def cost_of_copy(*specs: Spec, out: Spec, **settings: Any) -> Cost:
    return Cost(0, 2 * out.nbytes)


def exact_bits(rng: Rng) -> Array:
    """A 2 x 5 array whose elements show whether bits are kept: NaN, infinities, both zeros, extreme values."""
    del rng  # a constant, drawn like the others
    odd = [[np.nan, np.inf, -np.inf, 0.0, -0.0], [1e-30, 3e30, -1.5, 1e-45, 7.0]]
    return np.array(odd, np.float32)


def samples_of(
    *calls: tuple[Shape, dict[str, Any]], odd: dict[str, Any], ints: dict[str, Any]
) -> Callable[[Rng], Iterator[Sample]]:
    """Calls on float inputs of these shapes, on `exact_bits` with `odd`, and on (3, 4) inputs of other dtypes."""

    def samples(rng: Rng) -> Iterator[Sample]:
        for shape, settings in calls:
            smooth = prod(shape) < 100 and isfinite(settings.get("value", 0))
            yield Sample((uniform(rng, shape),), settings, smooth)
        yield Sample((exact_bits(rng),), odd, smooth=False)
        yield Sample((uniform(rng, (4, 3)).T,), ints)
        yield Sample((uniform(rng, (6, 8))[::-2, ::2],), ints)  # negative and wide strides
        for dtype in (np.int8, np.int64, np.uint32, np.bool_, np.complex64):
            yield Sample((integers(rng, (3, 4), 0, 100, np.int64).astype(dtype),), ints, smooth=False, exact=True)

    return samples


# reshape


def _infer_reshape(x: Spec, *, shape: Shape) -> Spec:
    check_sizes("reshape", shape)
    if prod(shape) != x.size:
        raise ShapeError(
            f"reshape needs a shape of {x.size} elements, as {x.shape} has, got {shape}: {prod(shape)} of them"
        )
    return Spec(shape, x.dtype)


def _reshape(x: Array, *, shape: Shape) -> Array:
    return x.reshape(shape)


def _gradient_of_reshape(g: Tensor, out: Tensor, x: Tensor, *, shape: Shape) -> Grads:
    return (ops.reshape(g, shape=x.shape),)


reshape = Op(
    "reshape", _infer_reshape, _reshape,
    samples_of(
        ((2, 6), {"shape": (3, 4)}), ((2, 3), {"shape": (6,)}), ((), {"shape": (1, 1)}), ((1,), {"shape": ()}),
        ((0, 3), {"shape": (5, 0)}), ((2, 3, 4), {"shape": (2, 3, 4)}), ((2, 3, 4), {"shape": (4, 1, 6)}),
        ((LARGE,), {"shape": (7, LARGE // 7)}),
        odd={"shape": (5, 2)}, ints={"shape": (2, 6)},
    ),
    _gradient_of_reshape, cost=cost_of_view, kind="movement",
    doc="The same elements, read row by row, in another `shape`; every size is given (no -1).",
)  # fmt: skip


# permute


def _infer_permute(x: Spec, *, axes: tuple[int, ...]) -> Spec:
    if len(axes) != x.ndim:
        raise ShapeError(f"permute needs each of the {x.ndim} axes of {x.shape} once, got axes={axes}")
    normalize_axes("permute", axes, x.ndim)
    return Spec(tuple(x.shape[a] for a in axes), x.dtype)


def _permute(x: Array, *, axes: tuple[int, ...]) -> Array:
    return np.transpose(x, axes)


def _gradient_of_permute(g: Tensor, out: Tensor, x: Tensor, *, axes: tuple[int, ...]) -> Grads:
    order = [a % len(axes) for a in axes]
    return (ops.permute(g, axes=tuple(order.index(i) for i in range(len(axes)))),)


permute = Op(
    "permute", _infer_permute, _permute,
    samples_of(
        ((2, 3), {"axes": (1, 0)}), ((2, 3, 4), {"axes": (2, 0, 1)}), ((2, 3, 4), {"axes": (-1, 0, -2)}),
        ((), {"axes": ()}), ((5,), {"axes": (0,)}), ((0, 3), {"axes": (1, 0)}), ((2, 3, 2, 3), {"axes": (0, 2, 1, 3)}),
        ((300, 250), {"axes": (1, 0)}),
        odd={"axes": (1, 0)}, ints={"axes": (1, 0)},
    ),
    _gradient_of_permute, cost=cost_of_view, kind="movement",
    doc="The axes in another order: axis i of the result is axis axes[i] of the input.",
)  # fmt: skip


# broadcast_to


def _infer_broadcast_to(x: Spec, *, shape: Shape) -> Spec:
    check_sizes("broadcast_to", shape)
    extra = len(shape) - x.ndim
    if extra < 0 or any(n not in (1, m) for n, m in zip(x.shape, shape[extra:], strict=True)):
        raise ShapeError(
            f"broadcast_to needs a shape that {x.shape} broadcasts to, got {shape}: aligned at the last axis, "
            "each size must be kept, or be 1 in the input"
        )
    return Spec(shape, x.dtype)


def _broadcast_to(x: Array, *, shape: Shape) -> Array:
    return np.broadcast_to(x, shape)


def _gradient_of_broadcast_to(g: Tensor, out: Tensor, x: Tensor, *, shape: Shape) -> Grads:
    return (unbroadcast(g, x.shape),)


broadcast_to = Op(
    "broadcast_to", _infer_broadcast_to, _broadcast_to,
    samples_of(
        ((3,), {"shape": (2, 3)}), ((2, 1), {"shape": (2, 4)}), ((), {"shape": (2, 2)}), ((2, 3), {"shape": (2, 3)}),
        ((1, 3, 1), {"shape": (2, 2, 3, 4)}), ((1, 3), {"shape": (0, 3)}), ((0, 1), {"shape": (2, 0, 3)}),
        ((LARGE // 10, 1), {"shape": (LARGE // 10, 10)}), ((1,), {"shape": (1,)}),
        odd={"shape": (3, 2, 5)}, ints={"shape": (2, 3, 4)},
    ),
    _gradient_of_broadcast_to, cost=cost_of_view, kind="movement",
    doc="The input repeated along new axes in front and along axes of size 1, to `shape`.",
)  # fmt: skip


# slice


def slice_sizes(start: tuple[int, ...], stop: tuple[int, ...], step: tuple[int, ...]) -> Shape:
    """How many elements each axis of a slice has."""
    return tuple(len(range(*s)) for s in zip(start, stop, step, strict=True))


def infer_slice(who: str, x: Spec, start: tuple[int, ...], stop: tuple[int, ...], step: tuple[int, ...]) -> Shape:
    """The shape of a slice of `x`.

    Raises:
        ShapeError: not one start, stop and step for each axis, a step of 0, or an element that the axis does not have.
    """
    if not len(start) == len(stop) == len(step) == x.ndim:
        raise ShapeError(
            f"{who} needs one start, stop and step for each of the {x.ndim} axes of {x.shape}, "
            f"got start={start}, stop={stop}, step={step}"
        )
    for axis, (n, *bounds) in enumerate(zip(x.shape, start, stop, step, strict=True)):
        taken = range(*bounds) if bounds[2] else range(0)
        if bounds[2] == 0 or (taken and not (0 <= taken[0] < n and 0 <= taken[-1] < n)):
            raise ShapeError(
                f"{who} needs elements range(start, stop, step) that exist, got range{tuple(bounds)} "
                f"for axis {axis} of {x.shape}; negative positions are counted from the end by x[...] only"
            )
    return slice_sizes(start, stop, step)


def _infer_slice(x: Spec, *, start: tuple[int, ...], stop: tuple[int, ...], step: tuple[int, ...]) -> Spec:
    return Spec(infer_slice("slice", x, start, stop, step), x.dtype)


@lru_cache(maxsize=4096)
def python_slices(start: tuple[int, ...], stop: tuple[int, ...], step: tuple[int, ...]) -> tuple[Any, ...]:
    """The index that takes a slice of a NumPy array: in range(n, -1, -1) the -1 is before the first element."""
    built = np.s_  # the builtin `slice` is hidden by the op of this module
    index = (
        built[a : None if b < 0 else b : c] if range(a, b, c) else built[0:0]
        for a, b, c in zip(start, stop, step, strict=True)
    )
    return (*index, ...)  # the ellipsis, so that an index of no axes gives an array too


def _slice(x: Array, *, start: tuple[int, ...], stop: tuple[int, ...], step: tuple[int, ...]) -> Array:
    return x[python_slices(start, stop, step)]


def unslice(
    value: Tensor, shape: Shape, start: tuple[int, ...], stop: tuple[int, ...], step: tuple[int, ...]
) -> Tensor:
    """An array of zeros of `shape` that has `value` where slice would have taken it: the adjoint of slice."""
    for axis, (n, taken) in enumerate(zip(shape, map(range, start, stop, step), strict=True)):
        if len(taken) == 0:
            value = widen(value, axis, n, 0)
            continue
        first, last, stride = taken[0], taken[-1], abs(taken.step)
        if taken.step < 0 and len(taken) > 1:
            value, first, last = cut(value, axis, len(taken) - 1, -1, -1), last, first
        if stride > 1 and len(taken) > 1:  # each element followed by stride - 1 zeros, save the last
            apart = ops.reshape(value, shape=(*value.shape[: axis + 1], 1, *value.shape[axis + 1 :]))
            apart = widen(apart, axis + 1, 0, stride - 1)
            size = len(taken) * stride
            value = ops.reshape(apart, shape=(*value.shape[:axis], size, *value.shape[axis + 1 :]))
            value = cut(value, axis, 0, size - stride + 1)
        value = widen(value, axis, first, n - 1 - last)
    return value


def _gradient_of_slice(
    g: Tensor, out: Tensor, x: Tensor, *, start: tuple[int, ...], stop: tuple[int, ...], step: tuple[int, ...]
) -> Grads:
    return (unslice(g, x.shape, start, stop, step),)


def _bounds(*bounds: tuple[int, int, int]) -> dict[str, Any]:
    start, stop, step = zip(*bounds, strict=True) if bounds else ((), (), ())
    return {"start": start, "stop": stop, "step": step}


slice_calls: list[tuple[Shape, dict[str, Any]]] = [
    ((5,), _bounds((1, 4, 1))), ((5,), _bounds((0, 5, 2))), ((5,), _bounds((1, 5, 3))), ((5,), _bounds((4, -1, -1))),
    ((5,), _bounds((3, 0, -2))), ((5,), _bounds((2, 2, 1))), ((5,), _bounds((0, -1, 1))), ((5,), _bounds((2, 1, -1))),
    ((), _bounds()), ((4, 5), _bounds((1, 3, 1), (4, -1, -2))), ((0, 3), _bounds((0, 0, 1), (1, 3, 1))),
    ((2, 3, 4), _bounds((0, 2, 1), (2, -1, -1), (3, 4, 1))), ((3, 4), _bounds((3, 3, 1), (0, 4, 1))),
    ((LARGE,), _bounds((1, LARGE, 7))),
]  # fmt: skip
slice = Op(
    "slice", _infer_slice, _slice,
    samples_of(*slice_calls, odd=_bounds((1, -1, -1), (0, 5, 2)), ints=_bounds((0, 3, 2), (3, 0, -1))),
    _gradient_of_slice, cost=cost_of_view, kind="movement",
    doc="The elements range(start, stop, step) of each axis; a negative step counts down, to a stop of -1 at most.",
)  # fmt: skip


# pad


def _infer_pad(x: Spec, *, padding: tuple[tuple[int, int], ...], value: bool | int | float = 0) -> Spec:
    if len(padding) != x.ndim or min(chain.from_iterable(padding), default=0) < 0:
        raise ShapeError(
            f"pad needs a pair (before, after) of sizes >= 0 for each of the {x.ndim} axes of {x.shape}, "
            f"got {padding}; to take elements away, slice"
        )
    return Spec(tuple(low + n + high for n, (low, high) in zip(x.shape, padding, strict=True)), x.dtype)


def _pad(x: Array, *, padding: tuple[tuple[int, int], ...], value: bool | int | float = 0) -> Array:
    return np.pad(x, padding, constant_values=value) if padding else x


def _gradient_of_pad(
    g: Tensor, out: Tensor, x: Tensor, *, padding: tuple[tuple[int, int], ...], value: bool | int | float
) -> Grads:
    start = tuple(low for low, _ in padding)
    stop = tuple(low + n for (low, _), n in zip(padding, x.shape, strict=True))
    return (ops.slice(g, start=start, stop=stop, step=(1,) * g.ndim),)


pad = Op(
    "pad", _infer_pad, _pad,
    samples_of(
        ((3,), {"padding": ((1, 2),)}), ((2, 3), {"padding": ((0, 1), (2, 0)), "value": 1.5}), ((), {"padding": ()}),
        ((2, 3), {"padding": ((0, 0), (0, 0))}), ((0, 3), {"padding": ((2, 0), (1, 1)), "value": -np.inf}),
        ((0, 0), {"padding": ((0, 0), (3, 0))}), ((1, 2, 3, 3), {"padding": ((0, 0), (0, 0), (1, 1), (2, 1))}),
        ((2,), {"padding": ((1, 0),), "value": np.nan}), ((LARGE,), {"padding": ((3, 5),)}),
        odd={"padding": ((1, 0), (0, 1)), "value": np.inf}, ints={"padding": ((0, 1), (1, 2)), "value": 1},
    ),
    _gradient_of_pad, cost=cost_of_copy, kind="movement",
    doc="The input with `value` around it: for each axis so many before and so many after.",
)  # fmt: skip

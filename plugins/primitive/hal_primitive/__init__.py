"""A device for hal with a kernel for every primitive, so that everything runs on it and nothing falls back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hal import ops
from hal.plugin import Array, Backend, Device, DType, Kernel, Kernels, Op, Spec, hookimpl

kernels = Kernels()
Ints = tuple[int, ...]

UFUNCS = {
    ops.add: np.add, ops.mul: np.multiply, ops.div: np.true_divide, ops.floor_divide: np.floor_divide,
    ops.pow: np.power, ops.exp: np.exp, ops.sin: np.sin, ops.cos: np.cos, ops.tanh: np.tanh,
    ops.sqrt: np.sqrt, ops.floor: np.floor, ops.less: np.less, ops.equal: np.equal, ops.where: np.where,
    ops.matmul: np.matmul, ops.permute: np.transpose, ops.bitwise_and: np.bitwise_and,
    ops.bitwise_right_shift: np.right_shift,
}  # fmt: skip


@kernels.register(ops.log)
def log(x: Array) -> Array:
    """In float64, since NumPy's float32 logarithm is off by more than what an op's record allows."""
    return np.log(x, dtype=np.float64) if x.dtype.kind == "f" else np.log(x)


@kernels.register(ops.sum)
def sum(x: Array, *, axis: int | Ints | None, keepdims: bool) -> Array:
    """Summed in float64, rounded once."""
    wide = np.float64 if x.dtype.kind not in "biuc" else None
    return np.sum(x, axis, dtype=wide, keepdims=keepdims)


@kernels.register(ops.max)
def max(x: Array, *, axis: int | Ints | None, keepdims: bool) -> Array:
    """The largest, NaN if there is one."""
    return np.max(x, axis, keepdims=keepdims)


@kernels.register(ops.reshape)
def reshape(x: Array, *, shape: Ints) -> Array:
    """The same elements in another shape."""
    return x.reshape(shape)


@kernels.register(ops.broadcast_to)
def broadcast_to(x: Array, *, shape: Ints) -> Array:
    """The same elements, repeated."""
    return np.broadcast_to(x, shape)


@kernels.register(ops.slice)
def slice_(x: Array, *, start: Ints, stop: Ints, step: Ints) -> Array:
    """Every step-th element from start on, along each axis; a stop below 0 means past the front."""
    stop = tuple(b if b >= 0 else 0 if s > 0 else None for b, s in zip(stop, step, strict=True))
    return x[tuple(map(slice, start, stop, step))]


@kernels.register(ops.pad)
def pad(x: Array, *, padding: tuple[tuple[int, int], ...], value: float) -> Array:
    """With `value` around."""
    return np.pad(x, padding, constant_values=np.asarray(value).astype(x.dtype)) if padding else x.copy()


@kernels.register(ops.take)
def take(x: Array, indices: Array, *, axis: int) -> Array:
    """The elements at `indices` along one axis."""
    return np.take(x, indices, axis)


@kernels.register(ops.index_add)
def index_add(x: Array, indices: Array, updates: Array, *, axis: int) -> Array:
    """`x` with `updates` added at `indices` along one axis."""
    out = x.astype(np.float32) if x.dtype.itemsize == 2 and x.dtype.kind not in "iu" else x.copy()
    np.add.at(out, (*(slice(None),) * (axis % x.ndim), indices), updates)  # the indices may have several axes
    return out


@kernels.register(ops.cast)
def cast(x: Array, *, dtype: DType) -> Array:
    """Converted element by element."""
    return x.astype(dtype.numpy)


@kernels.register(ops.iota)
def iota(*, size: int, dtype: DType, device: Device) -> Array:
    """0, 1, 2, …"""
    return np.arange(size).astype(dtype.numpy)


@kernels.register(ops.full)
def full(value: Array, *, shape: Ints) -> Array:
    """One value everywhere."""
    return np.full(shape, value, value.dtype)


class Primitive(Backend):
    """NumPy arrays behind the narrowest door that is wide enough."""

    name = "primitive"
    kernels = kernels
    priority = -1

    def devices(self) -> list[Device]:
        return [Device(self)]

    def upload(self, array: Array, device: Device) -> Array:
        return array.copy()

    def download(self, buffer: Array, spec: Spec) -> Array:
        return np.array(buffer)

    def prepare(
        self, op: Op, kernel: Kernel, specs: Sequence[Spec], outs: Sequence[Spec], settings: Mapping[str, object]
    ) -> Callable[..., Array]:
        """Results of exactly the inferred dtype, and no warnings: infinities are results like any other."""

        def run(*buffers: Array, **settings: object) -> Array:
            with np.errstate(all="ignore"):
                return np.asarray(kernel.run(*buffers, **settings)).astype(outs[0].dtype.numpy, copy=False)

        return run


for _op, _ufunc in UFUNCS.items():
    kernels.register(_op)(_ufunc)


@hookimpl
def hal_backends() -> list[Backend]:
    """The one device."""
    return [Primitive()]

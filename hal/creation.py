"""New tensors: from Python and NumPy data, filled with values, or as sequences of numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hal import dtypes, ops, registry
from hal.device import Device, chosen
from hal.dtypes import DEFAULT_INT, DType
from hal.errors import DTypeError, ShapeError
from hal.interop import asarray
from hal.op import Array
from hal.source import user_line
from hal.spec import Shape, Spec
from hal.tensor import Origin, Tensor
from hal.transfer import check_dtype, upload

DeviceLike = Device | str | None


def scalar_array(value: bool | int | float | complex, spec: Spec) -> Array:
    """A 0-d host array; an integer that does not fit wraps around, as arrays do."""
    if isinstance(value, int) and spec.dtype.kind in ("int", "uint"):
        bits = 8 * spec.dtype.itemsize
        value &= (1 << bits) - 1
        if spec.dtype.kind == "int" and value >> (bits - 1):
            value -= 1 << bits
    return np.array(value, spec.dtype.numpy)


def placed(device: DeviceLike) -> tuple[Device, Origin]:
    """The device meant, and an origin that says whether it was chosen on purpose."""
    if device is not None:
        return Device(device), Origin(2, user_line(3))
    return registry.default_device(), Origin(2 if chosen() is not None else 1, user_line(3))


def _host_array(data: Any, dtype: DType | None) -> Array:
    if isinstance(data, np.ndarray):
        array = data
    else:
        if isinstance(data, (list, tuple)) and _holds_tensors(data):
            data = _without_tensors(data)
        try:
            array = np.asarray(data)
        except ValueError as error:
            raise ShapeError(f"hal.tensor needs nested lists of equal lengths, got ragged data: {error}") from None
        if array.dtype.kind not in "biufcV":  # V: what ml_dtypes adds
            held = {"O": "objects", "U": "text", "S": "bytes"}.get(array.dtype.kind, array.dtype.name)
            raise DTypeError(f"hal.tensor needs numbers, got {type(data).__name__} with {held} in it")
        if dtype is None and not isinstance(data, np.generic) and not hasattr(data, "dtype"):
            if array.dtype == np.float64:
                array = array.astype(np.float32)  # Python floats are of the default dtype, as in torch
            elif array.dtype == np.complex128:
                array = array.astype(np.complex64)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    wanted = dtype.numpy if dtype is not None else dtypes.of(array.dtype).numpy
    return array if array.dtype == wanted else array.astype(wanted)


def _holds_tensors(data: list[Any] | tuple[Any, ...]) -> bool:
    first = data[0] if data else None
    return isinstance(first, Tensor) or (isinstance(first, (list, tuple)) and _holds_tensors(first))


def _without_tensors(data: Any) -> Any:
    if isinstance(data, Tensor):
        return data.tolist()
    return [_without_tensors(d) for d in data] if isinstance(data, (list, tuple)) else data


def tensor(data: Any, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False) -> Tensor:
    """A new tensor with a copy of `data`: nested lists, numbers, a NumPy array, or another tensor.

    Python floats become float32 and integers int64; arrays keep their dtype.

    Raises:
        ShapeError: ragged lists.
        DTypeError: not numbers, or a dtype that the device does not have.

    Source: torch.tensor.
    """
    where, origin = placed(device)
    wanted = None if dtype is None else dtypes.dtype(dtype)
    if isinstance(data, Tensor):
        out = data.detach().clone().to(where) if device is not None else data.detach().clone()
        out = out if wanted is None else out.to(wanted)
    else:
        array = _host_array(data, wanted)
        spec = Spec(array.shape, dtypes.of(array.dtype))
        out = Tensor(upload(array, spec, where), spec, where, origin)
    if requires_grad:
        out.requires_grad = True
    return out


def from_numpy(array: Array) -> Tensor:
    """A tensor on the default device; on a device with host memory it shares the memory of `array`.

    An array that may not be written into is copied.

    Raises:
        DTypeError: `array` is no NumPy array, or of a type that hal or the device does not have.

    Source: torch.from_numpy.
    """
    if not isinstance(array, np.ndarray):
        raise DTypeError(f"hal.from_numpy needs a NumPy array, got {type(array).__name__}: use hal.tensor")
    where, origin = placed(None)
    shared = shared_with(array, where, origin)
    if shared is not None:
        return shared
    native = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    spec = Spec(native.shape, dtypes.of(native.dtype))
    return Tensor(upload(native, spec, where), spec, where, origin)


def shared_with(array: Array, device: Device, origin: Origin) -> Tensor | None:
    """A tensor that shares the memory of `array`, or None where the device or the array makes that impossible.

    Raises:
        DTypeError: hal or the device does not have the array's type.
    """
    if not array.dtype.isnative or not array.flags.writeable:
        return None
    spec = Spec(array.shape, dtypes.of(array.dtype))
    check_dtype(spec, device)
    buffer = device.backend.wrap(array, device)
    if buffer is None:
        return None
    out = Tensor(buffer, spec, device, origin)
    out.storage.borrowed = out.storage.shown = True
    return out


def shape_of(who: str, size: tuple[Any, ...], by_name: Any = None) -> Shape:
    """The shape meant by `f((2, 3))`, `f([2, 3])`, `f(2, 3)`, `f(2)` or `f(size=(2, 3))`.

    Raises:
        ShapeError: a size is negative or no integer.
    """
    if by_name is not None:
        if size:
            raise ShapeError(f"{who} got the sizes {size} and also size={by_name}: give them once")
        size = (by_name,)
    if len(size) == 1 and isinstance(size[0], (tuple, list)):
        size = tuple(size[0])
    out = []
    for n in size:
        try:
            number = n.__index__()
        except AttributeError:
            raise ShapeError(f"{who} needs whole numbers as sizes, got {n!r} in {size}") from None
        if number < 0:
            raise ShapeError(f"{who} needs sizes of 0 or more, got {size}")
        out.append(number)
    return tuple(out)


def _filled(shape: Shape, value: Any, dtype: DType, device: Device, origin: Origin) -> Tensor:
    from hal.placement import constant

    check_dtype(Spec(shape, dtype), device)
    out: Tensor = ops.full(constant(value, Spec((), dtype), device), shape=shape)
    out.origin = origin
    return out


def full(
    size: Any, fill_value: Any, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of shape `size` with `fill_value` everywhere; its dtype follows the value. Source: torch.full."""
    where, origin = placed(device)
    if isinstance(fill_value, str):
        raise DTypeError(f"full needs a number to fill with, got {fill_value!r}")
    wanted = dtypes.dtype(type(fill_value)) if dtype is None else dtypes.dtype(dtype)
    shape = shape_of("full", (size,) if isinstance(size, int) else (tuple(size),))
    return _leaf(_filled(shape, fill_value, wanted, where, origin), requires_grad)


def as_tensor(data: Any, dtype: Any = None, device: DeviceLike = None) -> Tensor:
    """`data` as a tensor: itself, or sharing its memory, where nothing must change. Source: torch.as_tensor."""
    return asarray(data, dtype=dtype, device=device)


def _leaf(out: Tensor, requires_grad: bool) -> Tensor:
    if requires_grad:
        out.requires_grad = True
    return out


def zeros(
    *sizes: Any, size: Any = None, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """Zeros of shape `size`, a tuple or several integers. Source: torch.zeros."""
    where, origin = placed(device)
    return _leaf(_filled(shape_of("zeros", sizes, size), 0, _or_default(dtype), where, origin), requires_grad)


def ones(
    *sizes: Any, size: Any = None, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """Ones of shape `size`, a tuple or several integers. Source: torch.ones."""
    where, origin = placed(device)
    return _leaf(_filled(shape_of("ones", sizes, size), 1, _or_default(dtype), where, origin), requires_grad)


def empty(
    *sizes: Any, size: Any = None, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of shape `size` whose contents do not matter (they are zeros). Source: torch.empty."""
    where, origin = placed(device)
    return _leaf(_filled(shape_of("empty", sizes, size), 0, _or_default(dtype), where, origin), requires_grad)


def _or_default(dtype: Any) -> DType:
    return dtypes.DEFAULT_FLOAT if dtype is None else dtypes.dtype(dtype)


def _like(x: Tensor, value: Any, dtype: Any, device: DeviceLike, requires_grad: bool) -> Tensor:
    where, origin = placed(x.device if device is None else device)
    wanted = x.dtype if dtype is None else dtypes.dtype(dtype)
    return _leaf(_filled(x.shape, value, wanted, where, origin if device is not None else x.origin), requires_grad)


def zeros_like(x: Tensor, /, *, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False) -> Tensor:
    """Zeros with the shape, dtype and device of `x`. Source: torch.zeros_like."""
    return _like(x, 0, dtype, device, requires_grad)


def ones_like(x: Tensor, /, *, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False) -> Tensor:
    """Ones with the shape, dtype and device of `x`. Source: torch.ones_like."""
    return _like(x, 1, dtype, device, requires_grad)


def empty_like(x: Tensor, /, *, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False) -> Tensor:
    """A tensor like `x` whose contents do not matter (they are zeros). Source: torch.empty_like."""
    return _like(x, 0, dtype, device, requires_grad)


def full_like(
    x: Tensor, /, fill_value: Any, *, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """`fill_value` with the shape, dtype and device of `x`. Source: torch.full_like."""
    return _like(x, fill_value, dtype, device, requires_grad)


def arange(
    start: float, /, stop: float | None = None, step: float = 1, *, end: float | None = None, dtype: Any = None,
    device: DeviceLike = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Numbers from `start` (0 if only one number is given) up to but not including `stop` (torch's `end`).

    Raises:
        ShapeError: a step of 0.

    Source: Array API, arange; torch.arange.
    """
    stop = end if stop is None else stop
    if stop is None:
        start, stop = 0, start
    if step == 0:
        raise ShapeError("arange needs a step that is not 0")
    where, origin = placed(device)
    whole = all(isinstance(v, int) for v in (start, stop, step))
    wanted = (dtypes.DEFAULT_INT if whole else dtypes.DEFAULT_FLOAT) if dtype is None else dtypes.dtype(dtype)
    count = max(0, math.ceil((stop - start) / step))
    check_dtype(Spec((count,), wanted), where)
    if wanted.is_inexact:  # in float64 on the host, so that every device gets the same, correctly rounded numbers
        array = (start + step * np.arange(count, dtype=np.float64)).astype(wanted.numpy)
        spec = Spec((count,), wanted)
        return _leaf(Tensor(upload(array, spec, where), spec, where, origin), requires_grad)
    out: Tensor = ops.iota(size=count, dtype=wanted, device=where)
    out = out if step == 1 else out * int(step)
    out = out if start == 0 else out + int(start)
    out.origin = origin
    return _leaf(out, requires_grad)


def linspace(
    start: float, stop: float, /, num: int = 0, *, steps: int | None = None, dtype: Any = None,
    device: DeviceLike = None, endpoint: bool = True, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """`num` numbers (torch's `steps`) evenly spaced from `start` to `stop`. Source: Array API; torch.linspace."""
    where, origin = placed(device)
    (num,) = shape_of("linspace", (num if steps is None else steps,))
    wanted = _or_default(dtype)
    array = np.linspace(start, stop, num, endpoint=endpoint, dtype=None if wanted.kind == "complex" else np.float64)
    spec = Spec((num,), wanted)
    return _leaf(Tensor(upload(array.astype(wanted.numpy), spec, where), spec, where, origin), requires_grad)


def tril_indices(row: int, col: int, offset: int = 0, *, device: DeviceLike = None) -> Tensor:
    """The rows and columns of the elements on and below a diagonal, int64, shape (2, n). Source: torch.tril_indices."""
    return tensor(np.array(np.tril_indices(row, offset, col)), DEFAULT_INT, device)


def triu_indices(row: int, col: int, offset: int = 0, *, device: DeviceLike = None) -> Tensor:
    """The rows and columns of the elements on and above a diagonal, int64, shape (2, n). Source: torch.triu_indices."""
    return tensor(np.array(np.triu_indices(row, offset, col)), DEFAULT_INT, device)


def eye(
    n: int, m: int | None = None, /, *, k: int = 0, dtype: Any = None, device: DeviceLike = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Ones on diagonal `k` of an n x m matrix of zeros. Source: Array API, eye; torch.eye."""
    where, origin = placed(device)
    rows, columns = shape_of("eye", (n, n if m is None else m))
    spec = Spec((rows, columns), _or_default(dtype))
    array = np.eye(rows, columns, k, dtype=spec.dtype.numpy)
    return _leaf(Tensor(upload(array, spec, where), spec, where, origin), requires_grad)

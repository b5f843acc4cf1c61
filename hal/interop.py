"""Contents of tensors on the host, and the ways in and out of other libraries: NumPy, DLPack, the buffer of anyone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hal import dtypes, report, tracing
from hal.abstract import ABSTRACT, StaleBackend
from hal.device import Device
from hal.errors import CopyError, DeviceError, DTypeError, GradientError, GraphError
from hal.graph.graph import Value
from hal.graph.host import Number
from hal.op import Array
from hal.spec import Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor


MADE_IN_A_TRACE = "made while a function was traced; return it from the compiled function"


def host_array(x: Tensor, who: str) -> Array:
    """The contents as a host array, which may share the tensor's memory and must not be written into.

    Waiting for a device whose memory is not the host's is counted, under the name of `who` asks.

    Raises:
        GradientError: `x` stands for contents that were changed after a gradient saved them.
        DeviceError: `x` has no contents (it is being traced), or the device failed.
    """
    from hal.transfer import contents  # which makes tensors, whose methods are here

    if isinstance(x.device.backend, StaleBackend):
        x.device.backend.refuse((x,))
    if x.device is ABSTRACT:
        raise DeviceError(f"{who} needs the contents of a tensor that has none: only shape and dtype are known here")
    tracer = tracing.active()
    if tracer is not None:
        known = tracer.known_contents(x)
        if known is None:
            return tracer.look(x, who).contents(x, who)
        x = known
    buffer, device = contents(x)
    if type(buffer) is Value:
        raise GraphError(f"{who} needs the contents of a tensor that has none: it was {MADE_IN_A_TRACE}")
    backend = device.backend
    if not backend.host_memory:
        report.note_sync(who, device, x.spec.nbytes)
    elif device is x.device:  # what only waits here is nobody's to see change
        shared = backend.expose(buffer, x.spec)
        if shared is not None:
            return shared
    return backend.download(buffer, x.spec)


def element(x: Tensor, who: str) -> Any:
    """The one element as a Python number; in a trace that is split there, as one that each call reads anew.

    Raises:
        GraphError, DeviceError, GradientError: as `host_array`.
    """
    tracer = tracing.active()
    if tracer is not None and tracer.known_contents(x) is None:
        return tracer.look(x, who).read(x, who)
    return host_array(x, who).item()


def from_host(array: Array, like: Tensor) -> Tensor:
    """A tensor with a copy of a host array, placed where `like` is."""
    from hal.tensor import Tensor
    from hal.transfer import upload

    spec = Spec(array.shape, dtypes.of(array.dtype))
    return Tensor(upload(array, spec, like.device), spec, like.device, like.origin)


def numpy(x: Tensor, /, *, force: bool = False) -> Array:
    """The contents as a NumPy array. It shares memory where the device has views and its memory is the host's.

    Args:
        force: whatever it takes: detach, and copy to the host.

    Raises:
        GradientError: the tensor requires a gradient, which NumPy would lose.
        DeviceError: it is on a device whose memory is not the host's.

    Source: torch.Tensor.numpy.
    """
    if x.tracked and not force:
        raise GradientError("numpy() of a tensor that requires a gradient would lose it: use .detach().numpy()")
    if x.device.backend.host_memory:
        _show(x)
    elif not force:
        raise DeviceError(f"numpy() needs a tensor in host memory, this one is on {x.device}: use .cpu().numpy()")
    return host_array(x, "numpy()")


def as_array(x: Tensor, dtype: Any = None, copy: bool | None = None) -> Array:
    """What `numpy.asarray(tensor)` asks for: `Tensor.__array__`. Source: NumPy, "Interoperability"."""
    array = numpy(x)
    if dtype is not None and np.dtype(dtype) != array.dtype:
        if copy is False:
            raise CopyError(
                f"an array of {np.dtype(dtype)} from a {x.dtype.name} tensor needs a copy, which copy=False forbids"
            )
        return array.astype(dtype)
    return array.copy() if copy else array


def _show(x: Tensor) -> None:
    """Let others have the memory of a tensor: what lives elsewhere between calls of a plan comes back into it."""
    if tracing.active() is None:
        x.buffer  # noqa: B018  # who asks for it gets it back
        x.storage.shown = True


CPU_IN_DLPACK = 1  # kDLCPU: host memory, whoever's device it is
HOST_IN_DLPACK = (1, 3, 11)  # kDLCPU, kDLCUDAHost, kDLROCMHost: what NumPy reads


def dlpack(x: Tensor, **options: Any) -> Any:
    """A DLPack capsule of the tensor's memory: `Tensor.__dlpack__`.

    Raises:
        BufferError: the tensor requires a gradient, or lies in memory that its backend does not lend.

    Source: Array API, `array.__dlpack__`; DLPack's Python specification.
    """
    if x.tracked:
        raise BufferError("DLPack cannot carry gradients: use .detach() first")
    if x.device.backend.host_memory:
        options.pop("stream", None)  # the host has none
        _show(x)
        return host_array(x, "DLPack export").__dlpack__(**options)
    return _lent(x).__dlpack__(**options)


def dlpack_device(x: Tensor) -> tuple[int, int]:
    """Device type and number in DLPack's terms: `Tensor.__dlpack_device__`.

    Raises:
        BufferError: the tensor lies in memory that its backend does not lend.
    """
    if x.device.backend.host_memory:
        return CPU_IN_DLPACK, 0
    kind, number = _lent(x).__dlpack_device__()
    return kind, number


def _lent(x: Tensor) -> Any:
    """What a backend with memory of its own gives other libraries."""
    lent = x.device.backend.lend(x.buffer, x.spec)
    if lent is None:
        raise BufferError(f"DLPack export needs host memory, this tensor is on {x.device}: use .cpu() first")
    return lent


def from_dlpack(x: Any, /, *, device: Device | str | None = None, copy: bool | None = None) -> Tensor:
    """A tensor with the contents of any object that speaks DLPack. Shares its memory where the device can.

    Memory of a device is taken by the backend that has such devices; with `device=`, the tensor is moved there after.

    Raises:
        DTypeError: `x` does not speak DLPack.
        DeviceError: it is in the memory of a device that no backend here shares.
        CopyError: copy=False, and the memory cannot be shared.

    Source: Array API, from_dlpack; torch.from_dlpack.
    """
    if not hasattr(x, "__dlpack__"):
        raise DTypeError(f"from_dlpack needs an object with __dlpack__, got {type(x).__name__}: use hal.asarray")
    return asarray(_shared(x), device=device, copy=copy)


def _shared(x: Any) -> Any:
    """An array in the host memory of an object that speaks DLPack, or a tensor in that of its device."""
    from hal import creation
    from hal.registry import devices
    from hal.tensor import Tensor

    kind, number = map(int, x.__dlpack_device__())
    if kind in HOST_IN_DLPACK:
        return np.from_dlpack(x)
    for there in devices():
        if there.backend.dlpack_type == kind and there.index == number:
            borrowed = there.backend.borrow(x, there)
            if borrowed is not None:
                return Tensor(*borrowed, there, creation.placed(there)[1])
    raise DeviceError(
        f"from_dlpack got a {type(x).__name__} on a device of DLPack's type {kind}, number {number}, "
        "which no backend here shares: move it to the host first"
    )


def asarray(obj: Any, /, *, dtype: Any = None, device: Device | str | None = None, copy: bool | None = None) -> Tensor:
    """A tensor of numbers, nested lists, a NumPy array, a tensor, or whatever speaks DLPack or NumPy's protocols.

    Args:
        copy: True: always; False: never; None: only if it must.

    Raises:
        CopyError: copy=False, and it must be copied.

    Source: Array API, asarray; torch.as_tensor.
    """
    from hal import creation
    from hal.tensor import Tensor

    wanted = None if dtype is None else dtypes.dtype(dtype)
    if not isinstance(obj, (Tensor, np.ndarray, list, tuple, bool, int, float, complex)):
        if hasattr(obj, "__dlpack__") and not isinstance(obj, np.generic):
            obj = _shared(obj)
        elif hasattr(obj, "__array__"):
            obj = np.asarray(obj)
    if isinstance(obj, Tensor):
        where = obj.device if device is None else Device(device)
        same = where is obj.device and wanted in (None, obj.dtype)
        if copy is False and not same:
            raise CopyError(f"asarray to {where}, {(wanted or obj.dtype).name} needs a copy, which copy=False forbids")
        return obj.to(where, dtype=wanted, copy=bool(copy))
    where, origin = creation.placed(device)
    if isinstance(obj, np.ndarray) and not copy and wanted in (None, dtypes.of(obj.dtype)):
        shared = creation.shared_with(obj, where, origin)
        if shared is not None:
            return shared
    if copy is False:
        raise CopyError(f"asarray of a {type(obj).__name__} on {where} needs a copy, which copy=False forbids")
    out = creation.tensor(obj, dtype=wanted, device=where)
    out.origin = origin
    return out


def as_operand(x: Any) -> Any:
    """What an operator makes of an operand that is neither tensor nor Python number: NumPy's scalars and arrays count,
    and what a traced function read from a tensor.

    Anything else is NotImplemented, so that Python asks the other side.
    """
    if isinstance(x, np.generic):
        return x.item()
    if isinstance(x, Number):
        return x
    return asarray(x) if isinstance(x, np.ndarray) else NotImplemented

"""All that the author of a backend or plugin imports: the backend contract, the kernel table, and the hooks.

A backend answers five questions: `name`, `kernels`, `devices()`, `upload()`, `download()`. All else has a default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pluggy

from hal import dtypes
from hal.blas import has_small_products, on_one_blas_thread, one_blas_thread
from hal.blas import threads as blas_threads
from hal.config import cache_dir, logs
from hal.device import Device
from hal.dtypes import DType
from hal.errors import ConfigError, DeviceError, DTypeError, OutOfMemoryError
from hal.graph.graph import Graph, Group, Node, Value
from hal.op import Array, Op, Tolerance
from hal.schedule.speed import Link, Pace, Speed
from hal.scopes import current_scope, listening
from hal.spec import Spec

if TYPE_CHECKING:
    import click

    from hal.graph.graph import Rewrite
    from hal.graph.plan import Plan as Plan  # which backends name, too
    from hal.testing.case import Level

__all__ = [
    "API_VERSION", "Array", "Backend", "Buffer", "ConfigError", "DType", "DTypeError", "Device", "DeviceError",
    "Graph", "Group", "Kernel", "Kernels", "Link", "Node", "Op", "OutOfMemoryError", "Pace", "Spec", "Speed",
    "Tolerance", "Unavailable", "Value", "blas_threads", "cache_dir", "current_scope", "dtypes",
    "has_small_products", "hookimpl", "listening", "logs", "on_one_blas_thread", "one_blas_thread",
]  # fmt: skip

API_VERSION = 1
OLDEST_API_VERSION = 1  # plugins built for an older one are refused
Buffer = Any  # a backend's own business: nothing outside it looks inside
Function = TypeVar("Function", bound=Callable[..., Any])
When = Callable[..., bool]

hookspec = pluggy.HookspecMarker("hal")
hookimpl = pluggy.HookimplMarker("hal")


@dataclass(frozen=True, eq=False)
class Kernel:
    """One way to run an op: `run(*buffers, **settings)` gives a buffer (a tuple for several results).

    Attributes:
        when: asked about specs and settings before anything runs; None means always.
        out: whether `run` can be given `out=buffer` to write into (a tuple for several results).
        alone: whether it is for single calls: a compiled graph has the op's decomposition instead, whose parts join
            groups with what stands before and behind; if it is not `exact`, since both may round in different ways.
    """

    run: Callable[..., Any]
    when: When | None = None
    out: bool = False
    alone: bool = False


class Kernels:
    """A table of kernels by op. The one registered last is asked first."""

    def __init__(self) -> None:
        self._by_op: dict[str, list[Kernel]] = {}

    def register(
        self, op: Op, *, when: When | None = None, out: bool = False, alone: bool = False
    ) -> Callable[[Function], Function]:
        """Decorate `kernel(*buffers, **settings) -> buffer` as a way to run `op`.

        Args:
            when: `when(*specs, **settings)`, true where the kernel can take the call. Default: everywhere.
            out: the kernel also takes `out=`, a buffer of the result's spec that it writes into and returns.
            alone: it is for single calls; see `Kernel`.
        """

        def keep(function: Function) -> Function:
            self._by_op.setdefault(op.name, []).insert(0, Kernel(function, when, out, alone))
            return function

        return keep

    def find(self, op: Op, specs: Iterable[Spec], settings: Mapping[str, Any]) -> Kernel | None:
        """The kernel that takes this call, if there is one."""
        for kernel in self._by_op.get(op.name, ()):
            if kernel.when is None or kernel.when(*specs, **settings):
                return kernel
        return None

    def update(self, other: Kernels) -> None:
        """Put the kernels of `other` before those that are here."""
        for name, added in other._by_op.items():
            self._by_op[name] = [*added, *self._by_op.get(name, ())]

    def describe(self) -> str:
        """What `hal devices -v` says of kernels that a plugin adds to another's backend: whether they run, why not."""
        return ""

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_op)

    def __len__(self) -> int:
        return len(self._by_op)

    def __contains__(self, op: Op) -> bool:
        return op.name in self._by_op


class Unavailable(DeviceError):
    """Raised by `Backend.devices` when there is none: the reason, and what cures it."""

    def __init__(self, reason: str, cure: str = "") -> None:
        super().__init__(f"{reason}; {cure}" if cure else reason)
        self.reason = reason
        self.cure = cure


class Backend:
    """Devices of one kind, their memory, and the kernels that run on them.

    A subclass gives `name`, `kernels`, `devices`, `upload` and `download`; whatever else it can do better than the
    defaults here, it overrides. Nothing outside the backend looks inside a buffer.

    Attributes:
        name: what users write: `HAL_BACKEND=name`.
        kernels: the table of kernels.
        priority: the available backend with the highest is the default; below zero is never chosen by itself.
        dtypes: the element types that buffers can have.
        training: whether ops that record a gradient may run here.
        views: whether movement kernels return buffers that share memory with their input; needs `write`.
        host_memory: whether buffers lie in host memory, so that copies from and to it are cheap.
        dlpack_type: DLPack's number of its memory (`DLDeviceType`), where that is not the host's and can be shared.
        simulated: whether kernels compute on the host what another machine would: what they take there `seconds` (or
            `speed`) says, and no clock of the host. Profiles have a track for that time.
        known_failures: what the conformance suite may find wrong: from ids of its cases (with `*` for any text) to the
            reason. Strict: an entry that matches no failure is itself a failure.
    """

    name: str
    kernels: Kernels
    priority: int = 0
    dtypes: frozenset[DType] = frozenset(dtypes.ALL)
    training: bool = True
    views: bool = False
    host_memory: bool = False
    dlpack_type: int | None = None
    simulated: bool = False
    known_failures: Mapping[str, str] = {}  # never changed: a backend that has some brings its own

    def devices(self) -> list[Device]:
        """The devices that are there, in a stable order.

        Raises:
            Unavailable: there is none, and this is why.
        """
        raise Unavailable(f"{type(self).__name__} does not say which devices it has", "let it answer devices()")

    def upload(self, array: Array, device: Device) -> Buffer:
        """A new buffer on `device` with the contents of a host array, which may change afterwards.

        Loaders call it from threads of their own, ahead of the work that needs the buffer: a device with more than one
        queue may copy on another than that of its kernels.
        """
        raise DeviceError(f"backend {self.name} cannot take data from the host: let it answer upload()")

    def download(self, buffer: Buffer, spec: Spec) -> Array:
        """A new host array with the contents of `buffer`."""
        raise DeviceError(f"backend {self.name} cannot give data to the host: let it answer download()")

    def copy(self, buffer: Buffer, spec: Spec, source: Device, target: Device) -> Buffer | None:
        """A copy of `buffer`, which lives on `source`, in the memory of `target`, a device of this backend.

        None (the default) means that there is no direct way and the host is used.
        """
        return None

    def all_reduce(self, buffers: Sequence[Buffer], spec: Spec, devices: Sequence[Device]) -> Sequence[Buffer] | None:
        """The sum of buffers of one spec, one on each of several devices of this backend: a new buffer on each.

        None (the default) means that they cannot sum among themselves: then all are copied to the first.
        """
        return None

    def write(self, buffer: Buffer, value: Buffer, spec: Spec) -> None:
        """Overwrite `buffer` with `value`, of the same spec, in place. Needed where `views` is true."""
        raise DeviceError(f"backend {self.name} declares views, so it must answer write()")

    def shares(self, buffer: Buffer, other: Buffer) -> bool:
        """Whether a movement kernel that was given `other` returned a view of its memory in `buffer`."""
        return self.views

    def wrap(self, array: Array, device: Device) -> Buffer | None:
        """A buffer that shares the memory of a host array, or None where that is impossible."""
        return None

    def expose(self, buffer: Buffer, spec: Spec) -> Array | None:
        """A host array that shares the memory of `buffer`, or None where that is impossible."""
        return None

    def lend(self, buffer: Buffer, spec: Spec) -> Any:
        """An object over the memory of `buffer` with `__dlpack__` and `__dlpack_device__`, or None (the default).

        Asked where memory is not the host's. Whoever takes its capsule must find the buffer's contents done, or in
        order with the stream that it asks for.
        """
        return None

    def borrow(self, lender: Any, device: Device) -> tuple[Buffer, Spec] | None:
        """A buffer over the memory of an object that speaks DLPack and lies on `device`, or None (the default)."""
        return None

    def prepare(
        self, op: Op, kernel: Kernel, specs: tuple[Spec, ...], outs: tuple[Spec, ...], settings: Mapping[str, Any]
    ) -> Callable[..., Any]:
        """What is called for every call of `op` on these specs: asked once, then kept. Default: the kernel itself."""
        return kernel.run

    def fuse(self, group: Group, device: Device) -> Callable[..., tuple[Buffer, ...]] | None:
        """One function for a group of nodes of a compiled graph, or None (the default): then they run one by one.

        It is called with the buffers of `group.graph.inputs`, in their order, and perhaps with `out=`: a tuple of
        buffers for the results, in which an entry may be None, and may be the buffer of an input of the same spec. It
        gives a tuple of buffers, one for each of `group.graph.outputs`. Constants of the graph are known beforehand.
        """
        return None

    def capture(
        self, plan: Plan, replay: Callable[..., tuple[Buffer, ...]]
    ) -> Callable[..., tuple[Buffer, ...]] | None:
        """A faster way to run a whole plan whose steps all run on this backend (a recorded command list, say).

        It is called with the buffers of the graph's inputs and gives those of `graph.results`, as `replay` does, which
        calls the steps one by one. None (the default): `replay` is what runs.
        """
        return None

    def reserve(self, nbytes: int, device: Device) -> Callable[[int, Spec, Buffer], Buffer] | None:
        """Memory for the intermediate results of a plan, or None (the default): then every kernel brings its own.

        The answer is asked for buffers in it: `carve(offset, spec, like)`, at a multiple of 64 bytes. `like` is what
        the kernel brought of its own; the new buffer has to lie in memory in the same order of axes, since that may
        decide how sums over it are rounded.
        """
        return None

    def synchronize(self, device: Device) -> None:
        """Wait until all work given to `device` is done."""
        return None

    def max_memory(self, device: Device) -> int | None:
        """Bytes that `device` can hold, or None if that is not known."""
        return None

    def tolerance(self, op: Op, dtype: DType) -> Tolerance | None:
        """How far results of `op` may be from the reference here, where the hardware cannot do what the record asks.

        For devices that compute in another kind of number than `dtype` (spike rates, products of fewer bits). The
        accuracy certificate prints it with its source instead of the record's. It is asked for ops that are decomposed,
        too, and gradients and networks may be off by four times as much on top of their own limits. None (the default):
        the record holds.
        """
        return None

    def tune(self, device: Device) -> None:
        """Choose between ways to run kernels by timing them on `device`, and remember it. Called by `hal calibrate`."""
        return None

    def speed(self, device: Device) -> Speed | None:
        """How fast `device` computes, for the scheduler. None (the default): it is measured when somebody asks."""
        return None

    def seconds(
        self, op: Op, specs: tuple[Spec, ...], outs: tuple[Spec, ...], settings: Mapping[str, Any], device: Device
    ) -> float | None:
        """What one call of `op` takes on `device`, where the backend knows better than its `speed`.

        Asked by the scheduler, once for each node of a graph, of calls that have a kernel. None (the default): `speed`.
        """
        return None

    def link(self, device: Device, other: Device | None = None) -> Link | None:
        """How fast copies from `device` to `other`, or to and from the host, are.

        None (the default): to the host it is measured; between two devices the way leads through the host.
        """
        return None

    def describe(self, device: Device) -> dict[str, str]:
        """What `hal devices -v` shows: driver, limits, versions."""
        return {}

    def identity(self, device: Device) -> dict[str, str]:
        """What has to be the same for a speed that was measured to hold. Default: all of `describe`.

        A backend whose description tells what changes from run to run, such as memory in use, leaves that out here.
        """
        return self.describe(device)

    def __repr__(self) -> str:
        return f"<backend {self.name}>"


class Hooks(Protocol):
    """The hooks that a plugin may implement, each marked with `hookimpl` in its module."""

    @hookspec
    def hal_backends(self) -> Iterable[Backend]:
        """Backends to add."""
        ...

    @hookspec
    def hal_ops(self) -> Iterable[Op]:
        """Ops to add to the table."""
        ...

    @hookspec
    def hal_kernels(self) -> Mapping[str, Kernels]:
        """Kernels to add to existing backends, by backend name. They are asked before the backend's own."""
        ...

    @hookspec
    def hal_rewrites(self) -> Iterable[Rewrite]:
        """Rewrites of compiled graphs to add: functions from a graph to a graph, run after hal's own simplifications.

        Each has the attribute `changes_rounding` if it may change the last bits of results; it can be switched off.
        """
        ...

    @hookspec
    def hal_conformance(self) -> Iterable[Level]:
        """Levels to add to the conformance suite."""
        ...

    @hookspec
    def hal_commands(self) -> Iterable[click.Command]:
        """Commands to add to the `hal` command line."""
        ...

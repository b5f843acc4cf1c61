"""One OpenCL device at work: its context and in-order queue, programs, memory, launches, and what went wrong."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hal.codegen.dialect import OPENCL
from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.layout import Shape
from hal.codegen.kernels.memory import Memory, Pool
from hal.codegen.kernels.products import Product
from hal.codegen.kernels.runtime import Runtime
from hal.plugin import Array, DeviceError, Spec
from hal_opencl import discovery
from hal_opencl.programs import OpenCLPrograms

if TYPE_CHECKING:
    from hal_opencl.recording import Recorder

REMEMBERED = 512  # launches whose events are kept, to find the one that failed
TIMED = 1 << 16  # the same with HAL_OPENCL_PROFILE=1, to read their times
PATTERNS = (1, 2, 4, 8, 16)  # bytes that the driver can fill memory with
KEPT = 1 << 16  # bytes up to which what is uploaded is copied once more, so that the queue need not be waited for
SPARE = 0.9  # of the device's memory: the rest is the driver's


class OpenCLRuntime(Runtime):
    """A device that runs kernels. There is one for each, made on first use.

    Attributes:
        device, context, queue: PyOpenCL's. The queue is in-order, and with HAL_OPENCL_PROFILE=1 it notes times.
        lock: held while a kernel's arguments are set and it is enqueued.
        lingering: shared host arrays that no buffer refers to, kept until the device is done with them.
        recorder: what notes the launches of a plan, while it does.
    """

    dialect = OPENCL

    def __init__(self, device: Any, name: str) -> None:
        import pyopencl as cl

        self.name = name
        self.device = device
        self.title = discovery.title(device)
        self.is_cpu = discovery.kind_of(device) == "cpu"
        self.is_simulator = any(s in self.title.lower() for s in discovery.SIMULATORS)
        self.units = int(device.max_compute_units)
        self.local = 1 if self.is_cpu else min(256, int(device.max_work_group_size))
        self.local_memory = int(device.local_mem_size)
        self.argument_bytes = int(device.max_parameter_size)
        self.tables = self.is_cpu
        self.max_block = int(device.max_mem_alloc_size)
        self.extensions = frozenset(device.extensions.split())
        self.has_float64 = "cl_khr_fp64" in self.extensions
        self.shares_memory = self.is_cpu or bool(getattr(device, "host_unified_memory", False))
        self.context = cl.Context([device])
        self.profiling = os.environ.get("HAL_OPENCL_PROFILE", "") not in ("", "0")
        if self.profiling:
            self.queue = cl.CommandQueue(self.context, properties=cl.command_queue_properties.PROFILING_ENABLE)
        else:
            self.queue = cl.CommandQueue(self.context)
        self.lock = threading.RLock()
        self.recorder: Recorder | None = None
        self.lingering: deque[tuple[Any, Any]] = deque()
        self.pool = Pool(self, int(SPARE * device.global_mem_size))
        self.programs = OpenCLPrograms(self)
        self.events: deque[tuple[Any, str]] = deque(maxlen=TIMED if self.profiling else REMEMBERED)

    # Memory.

    def allocate(self, nbytes: int) -> Any:
        import pyopencl as cl

        try:
            return cl.Buffer(self.context, cl.mem_flags.READ_WRITE, nbytes)
        except cl.MemoryError as error:
            raise MemoryError(str(error)) from None

    def release(self, memory: Memory) -> None:
        if memory.host is None:
            super().release(memory)
        else:  # the host's memory must be there until the kernels are done that were given it
            self.lingering.append((memory.data, memory.host))

    def upload(self, array: Array, spec: Spec) -> Buffer:
        import pyopencl as cl

        buffer = self.empty(spec.shape, spec.dtype, "a tensor from the host")
        if array.size:
            source = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            data = buffer.memory.data
            with self.guarded("a copy from the host"):
                if source.nbytes in PATTERNS:  # the driver keeps these itself: there is nothing to wait for
                    cl.enqueue_fill_buffer(self.queue, data, source, 0, source.nbytes)
                elif source.nbytes <= KEPT:
                    event = cl.enqueue_copy(self.queue, data, source.copy(), is_blocking=False)
                    self.events.append((event, "a copy from the host"))  # which keeps the copy alive
                else:
                    cl.enqueue_copy(self.queue, data, source, is_blocking=True)
        return buffer

    def download(self, buffer: Buffer) -> Array:
        import pyopencl as cl

        out = np.empty(buffer.shape, buffer.dtype.numpy)
        if self.recorder is not None:
            self.recorder.refuse()
        if out.size:
            start = buffer.offset * buffer.dtype.itemsize
            with self.guarded("a copy to the host"):
                cl.enqueue_copy(
                    self.queue, out.reshape(-1).view(np.uint8), buffer.memory.data, src_offset=start, is_blocking=True
                )
        return out

    # Work.

    def launch(
        self,
        label: str,
        kernel: Any,
        items: Shape,
        local: Shape,
        *arguments: Any,
        writes: Sequence[Memory] = (),
    ) -> None:
        """Enqueue a kernel. One that writes into memory that the host shares is waited for."""
        import pyopencl as cl

        given = [a.data if a.__class__ is Memory else a for a in arguments]
        with self.lock:
            try:
                if not hasattr(kernel, "types_known"):  # else PyOpenCL tries for each number what it may be, for 5 µs
                    kernel.set_scalar_arg_dtypes([a.dtype if isinstance(a, np.generic) else None for a in given])
                    kernel.types_known = True
                kernel.set_args(*given)
                event = cl.enqueue_nd_range_kernel(self.queue, kernel, items, local)
            except cl.Error as error:
                raise self.failure(label, error) from error
            self.events.append((event, label))
            if self.recorder is not None:
                self.recorder.note(label, kernel, items, local, arguments, writes)
        if os.environ.get("HAL_OPENCL_SYNC", "") not in ("", "0") or any(m.host is not None for m in writes):
            self.finish()

    def finish(self) -> None:
        """Wait until all that was enqueued is done.

        Raises:
            DeviceError: a kernel failed; the message names the op that enqueued it.
        """
        shared = len(self.lingering)
        with self.guarded("waiting for the device"):
            self.queue.finish()
        with self.lock:
            for _ in range(min(shared, len(self.lingering))):
                self.lingering.popleft()
        for event, label in self.events:
            if event.command_execution_status < 0:
                self.events.clear()
                raise DeviceError(
                    f"{label} failed on {self.name} ({self.title}) with status {event.command_execution_status}; "
                    "set HAL_OPENCL_SYNC=1 to see the line that called it"
                )
        if not self.profiling:
            self.events.clear()

    def multiply(self, label: str, product: Product) -> None:
        from hal_opencl.gemm_launch import multiply

        multiply(self, label, product)

    def spans(self) -> list[tuple[str, float, float]]:
        """With HAL_OPENCL_PROFILE=1: the kernels that ran since the last call, each with its start and end in seconds.

        The zero of the clock is the device's own. Waits for the device.

        Raises:
            DeviceError: times are not noted.
        """
        if not self.profiling:
            raise DeviceError(f"{self.name} notes no times: set HAL_OPENCL_PROFILE=1 before its first op")
        self.finish()
        found = [(label, event.profile.start * 1e-9, event.profile.end * 1e-9) for event, label in self.events]
        self.events.clear()
        return found

    def guarded(self, label: str) -> _Guard:
        """A block in which PyOpenCL's errors become HAL's."""
        return _Guard(self, label)

    def failure(self, label: str, error: Exception) -> Exception:
        """HAL's error for one of PyOpenCL's: what failed, on which device, and the cure."""
        text = str(error)
        first = next((name for event, name in self.events if _status(event) < 0), "")
        if first:
            label = f"{first} (noticed at {label})"
        if any(word in text for word in ("OUT_OF_RESOURCES", "MEM_OBJECT_ALLOCATION_FAILURE", "OUT_OF_HOST_MEMORY")):
            return MemoryError(f"{text}; in use: {self.pool.holders() or 'nothing'}")
        if any(word in text for word in ("DEVICE_NOT_AVAILABLE", "INVALID_COMMAND_QUEUE", "INVALID_CONTEXT")):
            return DeviceError(
                f"{label} found {self.name} ({self.title}) gone: {text}; what is in its memory is lost, what is on "
                "the host is not: start again from the last checkpoint, or go on with another device"
            )
        return DeviceError(
            f"{label} failed on {self.name} ({self.title}): {text}; "
            "set HAL_OPENCL_SYNC=1 so that an error is raised by the op that caused it"
        )


class _Guard:
    __slots__ = ("label", "runtime")

    def __init__(self, runtime: OpenCLRuntime, label: str) -> None:
        self.runtime = runtime
        self.label = label

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception):
            import pyopencl as cl

            if isinstance(error, cl.Error):
                raise self.runtime.failure(self.label, error) from error


def _status(event: Any) -> int:
    import pyopencl as cl

    try:
        return int(event.command_execution_status)
    except cl.Error:
        return -1

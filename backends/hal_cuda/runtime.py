"""One GPU at work: its streams, memory, programs, launches and products, and what went wrong."""

from __future__ import annotations

import math
import os
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

import numpy as np

from hal.codegen.dialect import CUDA
from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.layout import Shape, row_strides
from hal.codegen.kernels.memory import Memory, Pool
from hal.codegen.kernels.products import Product
from hal.codegen.kernels.runtime import Runtime
from hal.plugin import Array, ConfigError, DeviceError, OutOfMemoryError, Spec, dtypes, logs
from hal_cuda.driver import Address, Convolution, Driver, Failure, Refused
from hal_cuda.programs import CUDAPrograms, Kernel
from hal_cuda.transfers import Transfers

SPARE = 0.95  # of the memory that is free at the start: the rest is for programs and libraries
GROUP = 256  # threads of a block of kernels that do not choose their own
MOST_BLOCKS = (2**31 - 1, 65535, 65535)  # along each axis of a grid
ARGUMENT_BYTES = 4096  # of one kernel, on every generation
REMEMBERED = 64  # launches whose names are kept, to tell what a failure may have come from
GONE = (
    "IllegalAddress", "LaunchFailure", "LaunchTimeout", "ECCUncorrectable", "DevicesUnavailable", "HardwareStackError",
    "Misaligned",
)  # fmt: skip

Planned = tuple[Any, int]  # a plan of the driver's, and the bytes that it works in


class CUDARuntime(Runtime):
    """A GPU that runs kernels. There is one for each, made on first use.

    Attributes:
        driver, ordinal: NVIDIA's libraries, and which GPU this is.
        properties: what it is.
        stream: in which kernels are enqueued; copies from the host have their own, in `transfers`.
        lock: held while a kernel's arguments are written and it is enqueued.
        waiting: held while the host waits for the device: nothing may be captured meanwhile.
        held: while a graph is captured, all memory that it takes or is told of, to be kept as long as it. Else None.
        lingering: memory of other libraries that no buffer refers to, kept until the device is done with it.
        recent: names of what was enqueued since the device was last waited for.
    """

    dialect = CUDA
    halves = True

    def __init__(self, driver: Driver, ordinal: int, name: str) -> None:
        self.driver, self.ordinal, self.name = driver, ordinal, name
        self.properties = driver.properties(ordinal)
        self.title = self.properties.name
        self.units = self.properties.units
        self.local = min(GROUP, self.properties.group)
        self.local_memory = self.properties.shared
        self.argument_bytes = ARGUMENT_BYTES
        self.lock = threading.RLock()
        self.waiting = threading.RLock()
        self.held: list[Any] | None = None
        self.recent: deque[str] = deque(maxlen=REMEMBERED)
        self.lingering: deque[Any] = deque()
        self._workspace: Memory | None = None
        self._plans: dict[Convolution, Planned | None] = {}
        with self.guarded("the first use"):
            self.stream = driver.stream(ordinal)
            room = memory_limit(driver.free_memory(ordinal))
        self.max_block = room
        self.pool = Pool(self, room)
        self.programs = CUDAPrograms(driver, ordinal, name, self.title, self.properties)
        self.transfers = Transfers(self)

    # Memory.

    @property
    def pools(self) -> Sequence[Pool]:
        return (self.pool, self.transfers.pool)

    def empty(self, shape: Shape, dtype: dtypes.DType, made_by: str = "a tensor") -> Buffer:
        found = super().empty(shape, dtype, made_by)
        if self.held is not None:
            self.held.append(found.memory)
        return found

    def allocate(self, nbytes: int) -> Address:
        with self.guarded("an allocation"):
            return self.driver.allocate(self.ordinal, nbytes)

    def deallocate(self, data: Address) -> None:
        with self.guarded("giving memory back"):
            self.driver.free(self.ordinal, data)

    def release(self, memory: Memory) -> None:
        if memory.host is None:
            super().release(memory)
        else:  # another library's: it must be there until the kernels are done that were given it
            self.lingering.append(memory.host)

    def upload(self, array: Array, spec: Spec) -> Buffer:
        with self.lock, self.guarded("a copy from the host"):
            if self.held is None:
                memory = self.transfers.send(array, "a tensor from the host")
            else:  # done now, once, and not by the graph, whose stream must not meet another
                memory = self.pool.take(max(1, array.nbytes), "a constant of a captured plan")
                self.held.append(memory)
                self.transfers.send_now(array, memory)
        return Buffer(memory, spec.shape, spec.dtype, row_strides(spec.shape), 0)

    def download(self, buffer: Buffer) -> Array:
        out = np.empty(buffer.shape, buffer.dtype.numpy)
        if out.size:
            with self.lock, self.guarded("a copy to the host"):
                self.driver.copy_out(self.ordinal, out.reshape(-1).view(np.uint8), address_of(buffer), self.stream)
            self.finish("a copy to the host")
        return out

    # Work.

    def launch(
        self,
        label: str,
        kernel: Kernel,
        items: Shape,
        local: Shape,
        *arguments: Any,
        writes: Sequence[Memory] = (),
    ) -> None:
        grid = [1, 1, 1]
        block = [1, 1, 1]
        for axis, (n, each) in enumerate(zip(items, local, strict=True)):
            grid[axis], block[axis] = n // each, each
            if grid[axis] > MOST_BLOCKS[axis]:
                raise DeviceError(
                    f"{label} needs {grid[axis]} blocks of threads along axis {axis} on {self.name}, which has at most "
                    f"{MOST_BLOCKS[axis]}: divide the call into smaller ones"
                )
        if self.held is not None:
            self.held += [a for a in arguments if isinstance(a, Memory)]
        with self.lock:
            self.recent.append(label)
            try:
                written = kernel.write(arguments)
                self.driver.launch(self.ordinal, kernel.handle, grid, block, written, self.stream)
            except Failure as error:
                raise self.failure(label, error) from error
        self._waited_for(label)

    def multiply(self, label: str, product: Product) -> None:
        from hal_cuda.products import multiply

        with self.lock:
            self.recent.append(label)
            with self.guarded(label):
                multiply(self, label, product)
        self._waited_for(label)

    def workspace(self, nbytes: int) -> Address:
        """Memory for libraries to work in: one block for all, since what is in the stream is done in order."""
        if self._workspace is None or self._workspace.nbytes < nbytes:
            self._workspace = None  # may be given back to make room
            self._workspace = self.pool.take(max(1, nbytes), "what libraries work in")
        if self.held is not None:
            self.held.append(self._workspace)
        address: Address = self._workspace.data
        return address

    @cached_property
    def biases(self) -> str:
        """What adds a bias while a product is written, or "" where results are filled with it first."""
        return self.driver.biases()

    @cached_property
    def convolutions(self) -> str:
        """What plans convolutions, or "" where all are made of columns and products."""
        return self.driver.convolutions()

    def plan(self, label: str, wanted: Convolution) -> Planned | None:
        """How cuDNN makes a convolution; None where it declines: what it declined once is not asked for again."""
        with self.lock, self.guarded(label):
            if wanted not in self._plans:
                try:
                    self._plans[wanted] = self.driver.convolution(self.ordinal, wanted, self.stream)
                except Refused as error:
                    self._plans[wanted] = None
                    if logs("kernels"):
                        print(f"hal: {label} on {self.name}: not by cuDNN, for {wanted} ({error})", file=sys.stderr)
            return self._plans[wanted]

    def convolve(self, label: str, planned: Planned, given: Mapping[str, Buffer]) -> bool:
        """Enqueue a convolution by cuDNN; False where there is no room for what it works in."""
        plan, nbytes = planned
        with self.lock, self.guarded(label):
            try:
                workspace = self.workspace(nbytes)
            except OutOfMemoryError:
                return False
            if self.held is not None:
                self.held += [b.memory for b in given.values()]
            self.recent.append(label)
            addresses = {name: address_of(b) for name, b in given.items()}
            self.driver.convolve(self.ordinal, plan, addresses, workspace)
        self._waited_for(label)
        return True

    def finish(self, label: str = "waiting for the device") -> None:
        done = len(self.lingering)
        with self.waiting, self.guarded(label):
            self.driver.wait(self.ordinal, self.stream)
        self.recent.clear()
        for _ in range(done):
            self.lingering.popleft()

    def _waited_for(self, label: str) -> None:
        if self.held is None and os.environ.get("HAL_CUDA_SYNC", "") not in ("", "0"):
            self.finish(label)

    # Failures.

    @contextmanager
    def guarded(self, label: str) -> Iterator[None]:
        """A block in which what the driver refuses becomes HAL's error."""
        try:
            yield
        except Failure as error:
            raise self.failure(label, error) from error

    def failure(self, label: str, error: Failure) -> DeviceError:
        """HAL's error for one of the driver's: what failed, on which device, and the cure."""
        earlier = list(dict.fromkeys(self.recent))
        if any(word in error.code for word in GONE):
            since = f"; enqueued since it was last waited for: {', '.join(earlier)}" if earlier else ""
            return DeviceError(
                f"{label} found {self.name} ({self.title}) unusable: {error}{since}; what is in its memory is lost, "
                "what is on the host is not: start the process again, with HAL_CUDA_SYNC=1 to see which op it was"
            )
        return DeviceError(
            f"{label} failed on {self.name} ({self.title}): {error}; "
            "set HAL_CUDA_SYNC=1 so that an error is raised by the op that caused it"
        )


def memory_limit(free: int) -> int:
    """Bytes that tensors may take of a GPU: HAL_CUDA_MEMORY, or nearly all that is free.

    Raises:
        ConfigError: the variable is no positive number.
    """
    text = os.environ.get("HAL_CUDA_MEMORY", "").strip()
    if not text:
        return int(SPARE * free)
    try:
        given = float(text)
    except ValueError:
        given = 0.0
    if not 0 < given < math.inf:
        raise ConfigError(
            f"HAL_CUDA_MEMORY must be a number of bytes, such as 20e9, or a part of what is free, such as 0.5; "
            f"got {text!r}"
        )
    return min(free, int(given * free if given <= 1 else given))


@contextmanager
def all_locked(runtimes: Sequence[CUDARuntime]) -> Iterator[None]:
    """A block in which nobody else enqueues on these GPUs; taken in one order, so that no two wait for each other."""
    with ExitStack() as stack:
        for runtime in sorted(runtimes, key=lambda r: r.ordinal):
            stack.enter_context(runtime.lock)
        yield


def address_of(buffer: Buffer) -> Address:
    """Where the first element of a buffer lies."""
    found: Address = buffer.memory.data + buffer.offset * buffer.dtype.itemsize
    return found

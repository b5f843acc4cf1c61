"""A `Driver` for tests: the streams, events, graphs and products of CUDA on the host, as late as they may be.

Nothing that is enqueued is done before something waits for it, or for what comes after it: who reads without having
waited reads what was never written (NaN). See docs/explanation/cuda-without-a-gpu.md.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from cuda_on_cpu.arrays import TYPES, convolved, factor, spanned, strided
from cuda_on_cpu.machine import UNWRITTEN, CompileError, DeviceMemory, Function, compiled, loaded
from cuda_on_cpu.streams import Event, Graph, Operation, Stream

from hal.plugin import Array
from hal_cuda.driver import (
    ALIGNMENT,
    WORKSPACE,
    Address,
    Convolution,
    Failure,
    Handle,
    Layout,
    Matrix,
    Properties,
    Refused,
)

MOST_WAITING = 1024  # operations of a stream before the oldest are done, as on a GPU
MOST_BLOCKS = (2**31 - 1, 65535, 65535)
MOST_THREADS = (1024, 1024, 64)
ARGUMENT_BYTES = 4096
SHARED_BYTES = 48 << 10
SCRATCH = 64  # bytes that a convolution works in


class OnCPU:
    """`hal_cuda.driver.Driver` without a GPU.

    Args:
        devices: how many.
        memory: bytes of each.
        order: `late`: nothing is done that nobody waits for; `others first`: who waits for a stream gets to see what
            all other streams do meanwhile, so that what is written over too early shows; `at once`.
        peers: whether devices read each other's memory.
        collectives: whether there is NCCL.
        cudnn, cublaslt: what these say of themselves; "" if they are not there.

    Attributes:
        calls: how often each method was called.
        launches: how often each kernel was run, by its name.
        reports: what went wrong in kernels, in words.
    """

    def __init__(
        self,
        devices: int = 1,
        memory: int = 1 << 30,
        order: str = "late",
        peers: bool = True,
        collectives: bool = True,
        cudnn: str = "",
        cublaslt: str = "",
    ) -> None:
        assert order in ("late", "others first", "at once")
        self.devices, self.order, self.peers, self.collectives = devices, order, peers, collectives
        self.cudnn, self.cublaslt = cudnn, cublaslt
        self.memory = DeviceMemory(devices, memory)
        self.calls: Counter[str] = Counter()
        self.launches: Counter[str] = Counter()
        self.reports: list[str] = []
        self._numbers = itertools.count(1)
        self._things: dict[Handle, Any] = {}
        self._streams: list[Stream] = []
        self._pinned: dict[Address, weakref.ref[Array]] = {}
        self._broken: dict[int, str] = {}
        self._refused: list[tuple[str, int, str]] = []
        self._reach = [1 << i for i in range(devices)]
        self._lock = threading.RLock()

    # What tests ask of it.

    def refuse(self, call: str, code: str, after: int = 0) -> None:
        """Let a later call of a method (`after` 0: the next one) fail with an error of CUDA's and be without effect."""
        self._refused.append((call, self.calls[call] + after + 1, code))

    def break_down(self, ordinal: int, code: str = "cudaErrorIllegalAddress") -> None:
        """Let a device be as after a kernel that failed: every call about it fails."""
        self._broken[ordinal] = code

    @contextmanager
    def counted(self) -> Iterator[Counter[str]]:
        """A block; what it gives then holds how often each method was called in it."""
        found: Counter[str] = Counter()
        before = self.calls.copy()
        yield found
        found.update(self.calls - before)

    # How calls go.

    @contextmanager
    def _call(self, name: str, call: str, ordinal: int | None) -> Iterator[None]:
        with self._lock:
            self.calls[name] += 1
            if ordinal is not None and ordinal in self._broken:
                raise self._failure(call, self._broken[ordinal])
            for refused in self._refused:
                if refused[:2] == (name, self.calls[name]):
                    raise Failure(call, refused[2])
            yield

    def _failure(self, call: str, code: str) -> Failure:
        error = Failure(call, code)
        if self.reports:
            error.add_note(self.reports[-1])
        return error

    def _new(self, thing: Any) -> Handle:
        handle = next(self._numbers)
        self._things[handle] = thing
        return handle

    def _enqueue(self, call: str, stream: Handle, operation: Operation) -> None:
        given: Stream = self._things[stream]
        if given.graph is not None:
            given.graph.operations.append(operation)
            if given is not given.graph.origin:
                given.graph.loose.add(given)
            return
        given.waiting.append(operation)
        given.given += 1
        self._do(given, given.given if self.order == "at once" else given.given - MOST_WAITING)

    def _do(self, stream: Stream, number: int) -> None:
        """Do what a stream was given, up to an operation."""
        while stream.done < number:
            operation = stream.waiting.popleft()
            stream.done += 1
            if stream.ordinal not in self._broken:
                operation()

    def _finish(self, stream: Stream) -> None:
        if self.order == "others first":
            for other in self._streams:
                if other is not stream:
                    self._do(other, other.given)
        self._do(stream, stream.given)

    def _fail(self, ordinal: int, code: str, report: str) -> None:
        self._broken[ordinal] = code
        self.reports.append(report)

    def _checked(self, ordinal: int, what: str, *places: tuple[int, Address, int]) -> bool:
        """Whether these bytes of devices are in blocks; if not, the device is broken."""
        for of, address, nbytes in places:
            if nbytes and not self.memory.holds(of, address, nbytes):
                self._fail(
                    ordinal, "cudaErrorIllegalAddress", f"{what}: {nbytes} bytes at {address:#x} are in no block"
                )
                return False
        return True

    # Devices.

    def count(self) -> int:
        with self._call("count", "cudaGetDeviceCount", None):
            return self.devices

    def properties(self, ordinal: int) -> Properties:
        with self._call("properties", "cudaGetDeviceProperties", ordinal):
            return Properties(
                name="CUDA on the host",
                capability=(9, 0),
                memory=self.memory.limit,
                units=2,
                group=1024,
                shared=SHARED_BYTES,
                cache=1 << 20,
                clock=0,
                bus=f"0000:{ordinal:02x}:00.0",
                driver=13000,
                toolkit=13000,
            )

    # Memory.

    def allocate(self, ordinal: int, nbytes: int) -> Address:
        with self._call("allocate", "cudaMalloc", ordinal):
            return self.memory.allocate(ordinal, nbytes)

    def free(self, ordinal: int, address: Address) -> None:
        with self._call("free", "cudaFree", ordinal):
            for stream in self._streams:
                if stream.ordinal == ordinal:
                    self._do(stream, stream.given)
            if not self.memory.free(ordinal, address):
                raise Failure("cudaFree", "cudaErrorInvalidValue")

    def free_memory(self, ordinal: int) -> int:
        with self._call("free_memory", "cudaMemGetInfo", ordinal):
            return self.memory.limit - self.memory.used[ordinal]

    def pinned(self, nbytes: int) -> Array:
        with self._call("pinned", "cudaHostAlloc", None):
            made = np.full(nbytes, UNWRITTEN, np.uint8)
            place = made.ctypes.data
            self._pinned[place] = weakref.ref(made, lambda _: self._pinned.pop(place, None))
            return made

    def _is_pinned(self, array: Array) -> bool:
        place = array.ctypes.data
        return any(
            (owner := found()) is not None and start <= place and place + array.nbytes <= start + owner.nbytes
            for start, found in list(self._pinned.items())
        )

    def copy_in(self, ordinal: int, target: Address, source: Array, stream: Handle) -> None:
        with self._call("copy_in", "cudaMemcpyAsync", ordinal):
            assert source.flags.c_contiguous, "what is copied must lie together"
            kept, place, nbytes = self._host("cudaMemcpyAsync", source, stream, True)

            def operation() -> None:
                if self._is_there(ordinal, kept) and self._checked(ordinal, "a copy in", (ordinal, target, nbytes)):
                    ctypes.memmove(target, place, nbytes)

            self._enqueue("cudaMemcpyAsync", stream, operation)

    def copy_out(self, ordinal: int, target: Array, source: Address, stream: Handle) -> None:
        with self._call("copy_out", "cudaMemcpyAsync", ordinal):
            assert target.flags.c_contiguous, "what is copied must lie together"
            kept, place, nbytes = self._host("cudaMemcpyAsync", target, stream, False)
            ctypes.memset(place, UNWRITTEN, nbytes)

            def operation() -> None:
                if self._is_there(ordinal, kept) and self._checked(ordinal, "a copy out", (ordinal, source, nbytes)):
                    ctypes.memmove(place, source, nbytes)

            self._enqueue("cudaMemcpyAsync", stream, operation)

    def _host(self, call: str, array: Array, stream: Handle, read: bool) -> tuple[Any, Address, int]:
        """What keeps host memory until a copy is done, or tells that it is gone; its place, and its size.

        Page-locked memory is for the caller to keep, and is read when the copy is done.
        """
        if self._is_pinned(array):
            return weakref.ref(_owner(array)), array.ctypes.data, array.nbytes
        if self._things[stream].graph is not None:
            raise Failure(call, "cudaErrorStreamCaptureUnsupported")
        kept = array.copy() if read else array
        return lambda: kept, kept.ctypes.data, kept.nbytes

    def _is_there(self, ordinal: int, kept: Callable[[], Any]) -> bool:
        if kept() is None:
            self._fail(ordinal, "cudaErrorIllegalAddress", "page-locked memory was freed before it was copied")
            return False
        return True

    def copy(self, ordinal: int, target: Address, source: Address, nbytes: int, stream: Handle) -> None:
        with self._call("copy", "cudaMemcpyAsync", ordinal):

            def operation() -> None:
                if self._checked(ordinal, "a copy", (ordinal, target, nbytes), (ordinal, source, nbytes)):
                    ctypes.memmove(target, source, nbytes)

            self._enqueue("cudaMemcpyAsync", stream, operation)

    def copy_peer(self, to: int, target: Address, of: int, source: Address, nbytes: int, stream: Handle) -> None:
        with self._call("copy_peer", "cudaMemcpyPeerAsync", to):

            def operation() -> None:
                if self._checked(to, "a copy between devices", (to, target, nbytes), (of, source, nbytes)):
                    ctypes.memmove(target, source, nbytes)

            self._enqueue("cudaMemcpyPeerAsync", stream, operation)

    # Streams.

    def stream(self, ordinal: int) -> Handle:
        with self._call("stream", "cudaStreamCreate", ordinal):
            made = Stream(ordinal)
            self._streams.append(made)
            return self._new(made)

    def wait(self, ordinal: int, stream: Handle) -> None:
        with self._call("wait", "cudaStreamSynchronize", ordinal):
            given: Stream = self._things[stream]
            if given.graph is not None:
                raise Failure("cudaStreamSynchronize", "cudaErrorStreamCaptureUnsupported")
            self._finish(given)
            if ordinal in self._broken:
                raise self._failure("cudaStreamSynchronize", self._broken[ordinal])

    def event(self, ordinal: int, timed: bool = False) -> Handle:
        with self._call("event", "cudaEventCreate", ordinal):
            return self._new(Event(timed))

    def record(self, ordinal: int, event: Handle, stream: Handle) -> None:
        with self._call("record", "cudaEventRecord", ordinal):
            noted: Event = self._things[event]
            given: Stream = self._things[stream]
            noted.stream, noted.graph = given, given.graph
            if given.graph is None:

                def operation() -> None:
                    noted.when = time.perf_counter()

                self._enqueue("cudaEventRecord", stream, operation)
                noted.number = given.given

    def after(self, ordinal: int, stream: Handle, event: Handle) -> None:
        with self._call("after", "cudaStreamWaitEvent", ordinal):
            noted: Event = self._things[event]
            given: Stream = self._things[stream]
            before, number = noted.stream, noted.number
            if before is None:
                return
            if noted.graph is not None:
                self._join(given, before, noted.graph)
                return
            if given.graph is not None:
                raise Failure("cudaStreamWaitEvent", "cudaErrorStreamCaptureIsolation")
            self._enqueue("cudaStreamWaitEvent", stream, lambda: self._do(before, number))

    def _join(self, stream: Stream, before: Stream, graph: Graph) -> None:
        """Draw a stream into a capture, or let the captured one wait for it. Operations are in order as it is."""
        if stream.graph not in (None, graph) or graph.origin.graph is not graph:
            raise Failure("cudaStreamWaitEvent", "cudaErrorStreamCaptureIsolation")
        if stream is graph.origin:
            graph.loose.discard(before)
            return
        stream.graph = graph
        graph.loose.add(stream)

    def done(self, event: Handle) -> bool:
        with self._call("done", "cudaEventQuery", None):
            noted: Event = self._things[event]
            return noted.stream is None or noted.stream.done >= noted.number

    def elapsed(self, first: Handle, second: Handle) -> float:
        with self._call("elapsed", "cudaEventElapsedTime", None):
            events: list[Event] = [self._things[first], self._things[second]]
            for event in events:
                if not event.timed or event.stream is None:
                    raise Failure("cudaEventElapsedTime", "cudaErrorInvalidResourceHandle")
                self._do(event.stream, event.number)
            return events[1].when - events[0].when

    def drop_event(self, event: Handle) -> None:
        with self._call("drop_event", "cudaEventDestroy", None):
            del self._things[event]

    # Programs.

    def build(self, source: str, architecture: str) -> bytes:
        with self._lock:
            self.calls["build"] += 1
        try:
            return compiled(source)
        except CompileError as error:
            raise Refused(str(error)) from None

    def module(self, ordinal: int, code: bytes) -> Handle:
        with self._call("module", "cuModuleLoadData", ordinal):
            library = loaded(code)
            if library is None:
                raise Failure("cuModuleLoadData", "CUDA_ERROR_NO_BINARY_FOR_GPU")
            return self._new(library)

    def function(self, ordinal: int, module: Handle, name: str) -> Handle:
        with self._call("function", "cuModuleGetFunction", ordinal):
            try:
                return self._new(Function(self._things[module], name))
            except AttributeError:
                raise Failure("cuModuleGetFunction", "CUDA_ERROR_NOT_FOUND") from None

    def launch(
        self,
        ordinal: int,
        function: Handle,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: int,
        stream: Handle,
        shared: int = 0,
    ) -> None:
        with self._call("launch", "cuLaunchKernel", ordinal):
            kernel: Function = self._things[function]
            blocks, threads = tuple(map(int, grid)), tuple(map(int, block))
            assert shared == 0, "no kernel asks for shared memory at its launch"
            packed = kernel.packed(arguments)
            if not (
                all(0 < n <= most for n, most in zip(blocks, MOST_BLOCKS, strict=True))
                and all(0 < n <= most for n, most in zip(threads, MOST_THREADS, strict=True))
                and threads[0] * threads[1] * threads[2] <= 1024
                and kernel.shared <= SHARED_BYTES
                and len(packed) - 16 <= ARGUMENT_BYTES
            ):
                raise Failure("cuLaunchKernel", "CUDA_ERROR_INVALID_VALUE")

            def operation() -> None:
                self.launches[kernel.name] += 1
                code, report = kernel.run(self.memory, blocks, threads, packed, self._reach[ordinal])
                if code:
                    self._fail(ordinal, code, report)

            self._enqueue("cuLaunchKernel", stream, operation)

    # Products.

    def multiply(
        self,
        ordinal: int,
        dtype: str,
        out_dtype: str,
        sizes: tuple[int, int, int],
        a: Matrix,
        b: Matrix,
        out: Matrix,
        batch: int,
        add: bool,
        precision: str,
        stream: Handle,
    ) -> None:
        with self._call("multiply", "cublasGemmStridedBatchedEx", ordinal):
            self._multiply(ordinal, (dtype, out_dtype), sizes, (a, b, out), batch, precision, stream, add=add)

    def biases(self) -> str:
        return self.cublaslt

    def multiply_add(
        self,
        ordinal: int,
        dtype: str,
        sizes: tuple[int, int, int],
        a: Matrix,
        b: Matrix,
        out: Matrix,
        batch: int,
        bias: Address,
        precision: str,
        workspace: Address,
        stream: Handle,
    ) -> bool:
        with self._call("multiply_add", "cublasLtMatmul", ordinal):
            assert dtype != "float64", "cuBLASLt adds no bias to float64"
            if any(address % ALIGNMENT for address in (a.address, b.address, out.address, bias)):
                raise Failure("cublasLtMatmul", "CUBLAS_STATUS_INVALID_VALUE")
            more = {"bias": bias, "workspace": workspace}
            self._multiply(ordinal, (dtype, dtype), sizes, (a, b, out), batch, precision, stream, **more)
            return True

    def _multiply(
        self, ordinal: int, kinds: tuple[str, str], sizes: tuple[int, int, int], matrices: tuple[Matrix, ...],
        batch: int, precision: str, stream: Handle, *, add: bool = False, bias: Address = 0, workspace: Address = 0,
    ) -> None:  # fmt: skip
        m, n, k = sizes
        a, b, out = matrices
        assert not out.swapped, "cuBLAS gives its result as it is"
        given, made = (np.dtype(TYPES[kind]) for kind in kinds)
        if made != given and (made != np.float32 or given.itemsize != 2):
            raise Failure("cublasGemmStridedBatchedEx", "CUBLAS_STATUS_NOT_SUPPORTED")
        shapes = ((a, m, k, given), (b, k, n, given), (out, m, n, made))
        for x, rows, columns, _ in shapes:
            if x.lead < max(1, columns if x.swapped else rows):
                raise Failure("cublasGemmStridedBatchedEx", "CUBLAS_STATUS_INVALID_VALUE")
        more = [(ordinal, bias, m * made.itemsize), (ordinal, workspace, WORKSPACE)] if bias else []

        def operation() -> None:
            views = []
            for x, rows, columns, kind in shapes:
                along, across = (x.lead, 1) if x.swapped else (1, x.lead)
                last = (batch - 1) * x.step + (rows - 1) * along + (columns - 1) * across
                if not self._checked(ordinal, "a product", (ordinal, x.address, (last + 1) * kind.itemsize), *more):
                    return
                views.append(strided(x.address, kind, (batch, rows, columns), (x.step, along, across), last + 1))
            left, right, result = views
            with np.errstate(all="ignore"):  # what is no number is none on a GPU, too
                found = np.matmul(factor(left, precision), factor(right, precision))
                found = found + result.astype(found.dtype) if add else found
                result[...] = found + strided(bias, made, (m, 1), (1, 0), m).astype(found.dtype) if bias else found

        self._enqueue("cublasGemmStridedBatchedEx", stream, operation)

    # Convolutions.

    def convolutions(self) -> str:
        return self.cudnn

    def convolution(self, ordinal: int, wanted: Convolution, stream: Handle) -> tuple[Any, int]:
        with self._call("convolution", "cudnnBackendFinalize", ordinal):
            if wanted.bias and wanted.made != "y":
                raise Refused("no engine adds a bias to a gradient")
            return (wanted, stream), SCRATCH

    def convolve(self, ordinal: int, plan: Any, addresses: Mapping[str, Address], workspace: Address) -> None:
        with self._call("convolve", "cudnnBackendExecute", ordinal):
            wanted, stream = plan
            if any(a % ALIGNMENT for a in addresses.values()):
                raise Failure("cudnnBackendExecute", "CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER")
            shapes = {"x": wanted.x, "w": wanted.w, "y": wanted.y}
            if wanted.bias:
                shapes["bias"] = Layout((wanted.y.sizes[1],), (1,))
            kind = np.dtype(TYPES[wanted.dtype])
            places = [(ordinal, addresses[name], spanned(x) * kind.itemsize) for name, x in shapes.items()]

            def operation() -> None:
                if self._checked(ordinal, "a convolution", *places, (ordinal, workspace, SCRATCH)):
                    ctypes.memset(workspace, UNWRITTEN, SCRATCH)
                    arrays = {name: strided(addresses[name], kind, *x, spanned(x)) for name, x in shapes.items()}
                    arrays[wanted.made][...] = convolved(wanted, arrays)

            self._enqueue("cudnnBackendExecute", stream, operation)

    # Graphs.

    def begin_capture(self, ordinal: int, stream: Handle) -> None:
        with self._call("begin_capture", "cudaStreamBeginCapture", ordinal):
            given: Stream = self._things[stream]
            if given.graph is not None:
                raise Failure("cudaStreamBeginCapture", "cudaErrorIllegalState")
            given.graph = Graph(given)

    def end_capture(self, ordinal: int, stream: Handle) -> Handle:
        with self._call("end_capture", "cudaStreamEndCapture", ordinal):
            graph: Graph | None = self._things[stream].graph
            if graph is None or graph.origin is not self._things[stream]:
                raise Failure("cudaStreamEndCapture", "cudaErrorStreamCaptureUnmatched")
            for other in self._streams:
                if other.graph is graph:
                    other.graph = None
            if graph.loose:
                raise Failure("cudaStreamEndCapture", "cudaErrorStreamCaptureUnjoined")
            return self._new(graph)

    def launch_graph(self, ordinal: int, graph: Handle, stream: Handle) -> None:
        with self._call("launch_graph", "cudaGraphLaunch", ordinal):
            for operation in self._things[graph].operations:
                self._enqueue("cudaGraphLaunch", stream, operation)

    def drop_graph(self, graph: Handle) -> None:
        with self._call("drop_graph", "cudaGraphExecDestroy", None):
            del self._things[graph]

    # Peers.

    def can_reach(self, ordinal: int, other: int) -> bool:
        with self._call("can_reach", "cudaDeviceCanAccessPeer", ordinal):
            if self.peers:
                self._reach[ordinal] |= 1 << other
            return self.peers

    # Collectives.

    def has_collectives(self) -> bool:
        return self.collectives

    def all_reduce(
        self,
        ordinals: tuple[int, ...],
        sources: Sequence[Address],
        targets: Sequence[Address],
        count: int,
        dtype: str,
        streams: Sequence[Handle],
    ) -> None:
        with self._call("all_reduce", "ncclAllReduce", ordinals[0]):
            kind = np.dtype(TYPES.get(dtype, dtype))

            def operation() -> None:
                for ordinal, *places in zip(ordinals, sources, targets, strict=True):
                    if not self._checked(ordinal, "a sum", *((ordinal, p, count * kind.itemsize) for p in places)):
                        return
                parts = [strided(a, kind, (count,), (1,), count) for a in sources]
                wide = np.dtype(np.float32) if kind.itemsize == 2 else kind
                total = np.sum([p.astype(wide) for p in parts], axis=0, dtype=wide)
                for target in targets:
                    strided(target, kind, (count,), (1,), count)[...] = total.astype(kind)

            for ordinal, stream in zip(ordinals[1:], streams[1:], strict=True):  # all have come this far
                ready = self.event(ordinal)
                self.record(ordinal, ready, stream)
                self.after(ordinals[0], streams[0], ready)
            self._enqueue("ncclAllReduce", streams[0], operation)
            done = self.event(ordinals[0])
            self.record(ordinals[0], done, streams[0])
            for ordinal, stream in zip(ordinals[1:], streams[1:], strict=True):
                self.after(ordinal, stream, done)


def _owner(array: Array) -> Array:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array

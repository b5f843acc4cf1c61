"""NVIDIA's libraries through the lowest level of CuPy: no arrays of CuPy's, no kernels of CuPy's, no pool of CuPy's."""

# CuPy is not installed where types are checked.
# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from hal.plugin import Array
from hal_cuda.driver import OPTIONS, Address, Convolution, Failure, Handle, Matrix, Properties, Refused

if TYPE_CHECKING:
    from hal_cuda.cublaslt_driver import CuBLASLt
    from hal_cuda.cudnn_driver import CuDNN

TYPES = {"float16": 2, "bfloat16": 14, "float32": 0, "float64": 1}  # cudaDataType: CUDA_R_16F, R_16BF, R_32F, R_64F
NCCL_TYPES = {
    "int8": 0, "uint8": 1, "int32": 2, "uint32": 3, "int64": 4, "uint64": 5, "float16": 6, "float32": 7, "float64": 8,
    "bfloat16": 9,
}  # fmt: skip  # ncclDataType_t
NCCL_SUM = 0
FULL, TF32, DOUBLE = 68, 77, 70  # cublasComputeType: COMPUTE_32F, 32F_FAST_TF32, 64F
ALGORITHM = -1  # cublasGemmAlgo: the library chooses
RELAXED = 2  # cudaStreamCaptureMode: calls of other threads, and allocations, stay allowed
DEVICE_TO_DEVICE, TO_DEVICE, TO_HOST = 3, 1, 2  # cudaMemcpyKind
NON_BLOCKING, UNTIMED = 1, 2  # flags of streams and of events


class CuPyDriver:
    """`Driver` on GPUs."""

    def __init__(self) -> None:
        from cupy_backends.cuda.api import driver, runtime

        self._driver, self._runtime = driver, runtime
        self._known: set[int] = set()
        self._groups: dict[tuple[int, ...], Any] = {}
        self._products: dict[tuple[int, int], Any] = {}
        self._biased: dict[int, CuBLASLt] = {}
        self._convolutions: dict[tuple[int, int], CuDNN] = {}

    def _call(self, name: str, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (self._runtime.CUDARuntimeError, self._driver.CUDADriverError) as error:
            raise Failure(name, str(error)) from None

    def _at(self, ordinal: int) -> None:
        """Make a device the one of this thread, which CUDA's calls are about."""
        self._call("cudaSetDevice", self._runtime.setDevice, ordinal)  # always: other libraries set theirs
        if ordinal not in self._known:
            self._call("cudaFree", self._runtime.free, 0)  # makes its context, which the driver's own calls need
            self._known.add(ordinal)

    def count(self) -> int:
        return int(self._call("cudaGetDeviceCount", self._runtime.getDeviceCount))

    def properties(self, ordinal: int) -> Properties:
        found = self._call("cudaGetDeviceProperties", self._runtime.getDeviceProperties, ordinal)
        name = found["name"]
        return Properties(
            name=name.decode() if isinstance(name, bytes) else str(name),
            capability=(int(found["major"]), int(found["minor"])),
            memory=int(found["totalGlobalMem"]),
            units=int(found["multiProcessorCount"]),
            group=int(found["maxThreadsPerBlock"]),
            shared=int(found["sharedMemPerBlock"]),
            cache=int(found["l2CacheSize"]),
            clock=int(found.get("clockRate", 0)) // 1000,
            bus=self._call("cudaDeviceGetPCIBusId", self._runtime.deviceGetPCIBusId, ordinal),
            driver=int(self._call("cudaDriverGetVersion", self._runtime.driverGetVersion)),
            toolkit=int(self._call("cudaRuntimeGetVersion", self._runtime.runtimeGetVersion)),
        )

    # Memory.

    def allocate(self, ordinal: int, nbytes: int) -> Address:
        self._at(ordinal)
        try:
            return int(self._runtime.malloc(nbytes))
        except self._runtime.CUDARuntimeError as error:
            if "emoryAllocation" in str(error):
                raise MemoryError(str(error)) from None
            raise Failure("cudaMalloc", str(error)) from None

    def free(self, ordinal: int, address: Address) -> None:
        self._at(ordinal)
        self._call("cudaFree", self._runtime.free, address)

    def free_memory(self, ordinal: int) -> int:
        self._at(ordinal)
        return int(self._call("cudaMemGetInfo", self._runtime.memGetInfo)[0])

    def pinned(self, nbytes: int) -> Array:
        from cupy.cuda import PinnedMemory, PinnedMemoryPointer

        memory = self._call("cudaHostAlloc", PinnedMemory, nbytes)
        return np.frombuffer(PinnedMemoryPointer(memory, 0), np.uint8, nbytes)

    def copy_in(self, ordinal: int, target: Address, source: Array, stream: Handle) -> None:
        self._copy(ordinal, target, source.ctypes.data, source.nbytes, TO_DEVICE, stream)

    def copy_out(self, ordinal: int, target: Array, source: Address, stream: Handle) -> None:
        self._copy(ordinal, target.ctypes.data, source, target.nbytes, TO_HOST, stream)

    def copy(self, ordinal: int, target: Address, source: Address, nbytes: int, stream: Handle) -> None:
        self._copy(ordinal, target, source, nbytes, DEVICE_TO_DEVICE, stream)

    def _copy(self, ordinal: int, target: Address, source: Address, nbytes: int, kind: int, stream: Handle) -> None:
        self._at(ordinal)
        self._call("cudaMemcpyAsync", self._runtime.memcpyAsync, target, source, nbytes, kind, stream)

    def copy_peer(self, to: int, target: Address, of: int, source: Address, nbytes: int, stream: Handle) -> None:
        self._at(to)
        self._call("cudaMemcpyPeerAsync", self._runtime.memcpyPeerAsync, target, to, source, of, nbytes, stream)

    # Streams.

    def stream(self, ordinal: int) -> Handle:
        self._at(ordinal)
        return int(self._call("cudaStreamCreate", self._runtime.streamCreateWithFlags, NON_BLOCKING))

    def wait(self, ordinal: int, stream: Handle) -> None:
        self._at(ordinal)
        self._call("cudaStreamSynchronize", self._runtime.streamSynchronize, stream)

    def event(self, ordinal: int, timed: bool = False) -> Handle:
        self._at(ordinal)
        return int(self._call("cudaEventCreate", self._runtime.eventCreateWithFlags, 0 if timed else UNTIMED))

    def record(self, ordinal: int, event: Handle, stream: Handle) -> None:
        self._at(ordinal)
        self._call("cudaEventRecord", self._runtime.eventRecord, event, stream)

    def after(self, ordinal: int, stream: Handle, event: Handle) -> None:
        self._at(ordinal)
        self._call("cudaStreamWaitEvent", self._runtime.streamWaitEvent, stream, event)

    def done(self, event: Handle) -> bool:
        return (
            int(self._runtime.eventQuery(event)) == 0
        )  # the one call of CuPy's that gives the code instead of raising

    def elapsed(self, first: Handle, second: Handle) -> float:
        self._call("cudaEventSynchronize", self._runtime.eventSynchronize, second)
        return float(self._call("cudaEventElapsedTime", self._runtime.eventElapsedTime, first, second)) * 1e-3

    def drop_event(self, event: Handle) -> None:
        self._call("cudaEventDestroy", self._runtime.eventDestroy, event)

    # Programs.

    def build(self, source: str, architecture: str) -> bytes:
        from cupy_backends.cuda.libs import nvrtc

        program = nvrtc.createProgram(source, "kernel.cu", (), ())
        try:
            nvrtc.compileProgram(program, (f"--gpu-architecture={architecture}", *OPTIONS))
            return bytes(nvrtc.getCUBIN(program))
        except nvrtc.NVRTCError as error:
            raise Refused(f"{error}\n{nvrtc.getProgramLog(program)}") from None
        finally:
            nvrtc.destroyProgram(program)

    def module(self, ordinal: int, code: bytes) -> Handle:
        self._at(ordinal)
        return int(self._call("cuModuleLoadData", self._driver.moduleLoadData, code))

    def function(self, ordinal: int, module: Handle, name: str) -> Handle:
        self._at(ordinal)
        return int(self._call("cuModuleGetFunction", self._driver.moduleGetFunction, module, name))

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
        self._at(ordinal)
        launch = self._driver.launchKernel
        self._call("cuLaunchKernel", launch, function, *grid, *block, shared, stream, arguments, 0)

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
        from cupy_backends.cuda.libs import cublas

        self._at(ordinal)
        kind, made = TYPES[dtype], TYPES[out_dtype]
        compute = DOUBLE if dtype == "float64" else TF32 if precision == "tf32" and dtype == "float32" else FULL
        one, zero = _numbers(dtype == "float64")
        m, n, k = sizes
        handle = self._library(ordinal, stream)
        before = (handle, int(a.swapped), int(b.swapped), m, n, k, one.ctypes.data)
        scale = (one if add else zero).ctypes.data
        try:
            if batch == 1:
                cublas.gemmEx(
                    *before, a.address, kind, a.lead, b.address, kind, b.lead, scale, out.address, made, out.lead,
                    compute, ALGORITHM,
                )  # fmt: skip
            else:
                cublas.gemmStridedBatchedEx(
                    *before, a.address, kind, a.lead, a.step, b.address, kind, b.lead, b.step, scale,
                    out.address, made, out.lead, out.step, batch, compute, ALGORITHM,
                )  # fmt: skip
        except cublas.CUBLASError as error:
            raise Failure("cublasGemmEx" if batch == 1 else "cublasGemmStridedBatchedEx", str(error)) from None

    def _library(self, ordinal: int, stream: Handle) -> int:
        """cuBLAS for one stream: handles are not for several threads at once, streams are used under a lock."""
        handle = self._products.get((ordinal, stream))
        if handle is None:
            from cupy_backends.cuda.libs import cublas

            handle = self._products[ordinal, stream] = int(cublas.create())
            cublas.setStream(handle, stream)
        return int(handle)

    def biases(self) -> str:
        from hal_cuda.cublaslt_driver import version

        return version()

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
        from hal_cuda.cublaslt_driver import CuBLASLt

        self._at(ordinal)
        if ordinal not in self._biased:
            self._biased[ordinal] = CuBLASLt()
        library = self._biased[ordinal]
        return library.multiply(dtype, sizes, a, b, out, batch, bias, precision, workspace, stream)

    # Convolutions.

    def convolutions(self) -> str:
        from hal_cuda.cudnn_driver import version

        return version()

    def convolution(self, ordinal: int, wanted: Convolution, stream: Handle) -> tuple[Any, int]:
        from hal_cuda.cudnn_driver import CuDNN

        self._at(ordinal)
        if (ordinal, stream) not in self._convolutions:
            self._convolutions[ordinal, stream] = CuDNN(stream)
        return self._convolutions[ordinal, stream].planned(wanted)

    def convolve(self, ordinal: int, plan: Any, addresses: Mapping[str, Address], workspace: Address) -> None:
        self._at(ordinal)
        library, graph = plan
        library.run(graph, addresses, workspace)

    # Graphs.

    def begin_capture(self, ordinal: int, stream: Handle) -> None:
        self._at(ordinal)
        self._call("cudaStreamBeginCapture", self._runtime.streamBeginCapture, stream, RELAXED)

    def end_capture(self, ordinal: int, stream: Handle) -> Handle:
        self._at(ordinal)
        graph = self._call("cudaStreamEndCapture", self._runtime.streamEndCapture, stream)
        try:
            return int(self._call("cudaGraphInstantiate", self._runtime.graphInstantiate, graph))
        finally:
            self._call("cudaGraphDestroy", self._runtime.graphDestroy, graph)

    def launch_graph(self, ordinal: int, graph: Handle, stream: Handle) -> None:
        self._at(ordinal)
        self._call("cudaGraphLaunch", self._runtime.graphLaunch, graph, stream)

    def drop_graph(self, graph: Handle) -> None:
        self._call("cudaGraphExecDestroy", self._runtime.graphExecDestroy, graph)

    # Peers.

    def can_reach(self, ordinal: int, other: int) -> bool:
        if not self._call("cudaDeviceCanAccessPeer", self._runtime.deviceCanAccessPeer, ordinal, other):
            return False
        self._at(ordinal)
        try:
            self._runtime.deviceEnablePeerAccess(other)
        except self._runtime.CUDARuntimeError as error:
            return "AlreadyEnabled" in str(error)
        return True

    # Collectives.

    def has_collectives(self) -> bool:
        try:
            from cupy_backends.cuda.libs import nccl
        except ImportError:
            return False
        return bool(nccl.available)

    def all_reduce(
        self,
        ordinals: tuple[int, ...],
        sources: Sequence[Address],
        targets: Sequence[Address],
        count: int,
        dtype: str,
        streams: Sequence[Handle],
    ) -> None:
        from cupy_backends.cuda.libs import nccl

        try:
            if ordinals not in self._groups:
                self._groups[ordinals] = nccl.NcclCommunicator.initAll(list(ordinals))
            nccl.groupStart()
            try:
                members = zip(ordinals, self._groups[ordinals], sources, targets, streams, strict=True)
                for ordinal, member, source, target, stream in members:
                    self._at(ordinal)
                    member.allReduce(source, target, count, NCCL_TYPES[dtype], NCCL_SUM, stream)
            finally:
                nccl.groupEnd()
        except nccl.NcclError as error:
            raise Failure("ncclAllReduce", str(error)) from None


@cache
def _numbers(double: bool) -> tuple[Array, Array]:
    """One and zero in host memory, of the type that products are summed in."""
    kind = np.float64 if double else np.float32
    return np.ones(1, kind), np.zeros(1, kind)

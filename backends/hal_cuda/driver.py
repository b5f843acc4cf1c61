"""All that is asked of NVIDIA's libraries, in one place: memory, streams, programs, launches, products, graphs.

The rest of this folder knows only `Driver`. `cupy_driver` answers it on a GPU; the tests bring one that compiles the
same kernels for the host, so that all else here runs where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from hal.plugin import Array

OPTIONS = ("--std=c++17", "--fmad=false")  # of the compiler: fused kernels round as the ops one by one do
ALIGNMENT = 16  # bytes: what cuDNN and cuBLASLt may take all addresses to be multiples of
WORKSPACE = 32 << 20  # bytes that products with a bias work in: what NVIDIA advises for Hopper
Handle = int  # of a stream, an event, a module, a function, a graph: what the libraries give out
Address = int  # in the memory of a device, or of page-locked host memory


@dataclass(frozen=True)
class Properties:
    """What a GPU is.

    Attributes:
        name: as NVIDIA calls it.
        capability: compute capability, such as (9, 0).
        memory: bytes of device memory.
        units: multiprocessors.
        group: most threads of a block.
        shared: bytes of shared memory that a block has without asking for more.
        cache: bytes of L2 cache.
        clock: MHz of the multiprocessors, 0 where it is not told.
        bus: where it sits.
        driver, toolkit: versions, such as 13000.
    """

    name: str
    capability: tuple[int, int]
    memory: int
    units: int
    group: int
    shared: int
    cache: int
    clock: int
    bus: str
    driver: int
    toolkit: int

    @property
    def architecture(self) -> str:
        """What compilers call it, such as `sm_90`."""
        return f"sm_{self.capability[0]}{self.capability[1]}"


class Matrix(NamedTuple):
    """A factor or the result of a product as cuBLAS sees it, column by column.

    Attributes:
        address: of its first element.
        lead: elements from column to column.
        step: elements from one matrix of the batch to the next.
        swapped: whether the transpose of what lies there is meant.
    """

    address: Address
    lead: int
    step: int = 0
    swapped: bool = False


class Layout(NamedTuple):
    """Where the elements of a tensor are: sizes and strides, in elements."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]


class Convolution(NamedTuple):
    """A convolution as cuDNN is asked for it: two of images, weights and results give the third.

    Attributes:
        made: which of the three is computed, `x`, `w` or `y`.
        dtype: of all three; sums are of float32.
        x: images (N, C, *space).
        w: weights (K, C / groups, *kernel).
        y: results (N, K, *places).
        padding, stride, dilation: along each axis of space.
        bias: whether a number for each channel is added to results `y`.
        precision: `highest` or `tf32`: what float32 may be rounded to before it is multiplied.
    """

    made: str
    dtype: str
    x: Layout
    w: Layout
    y: Layout
    padding: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    bias: bool = False
    precision: str = "highest"

    @property
    def result(self) -> Layout:
        """Where the result goes."""
        found: Layout = getattr(self, self.made)
        return found


class Failure(Exception):
    """A call that was refused: its name and what the library said.

    Attributes:
        code: the library's name of the error, such as `cudaErrorIllegalAddress`.
    """

    def __init__(self, call: str, code: str) -> None:
        super().__init__(f"{call}: {code}")
        self.code = code


class Refused(Exception):
    """A source that does not compile: what the compiler said."""


class Driver(Protocol):
    """NVIDIA's libraries. Calls are about the device `ordinal`; all are safe from several threads.

    What is enqueued in one stream is done in order. Every method but `allocate`, `build` and `multiply` may raise
    `Failure`.
    """

    def count(self) -> int:
        """How many GPUs there are. Raises Failure with the reason where there is no driver."""
        ...

    def properties(self, ordinal: int) -> Properties:
        """What a GPU is."""
        ...

    # Memory.

    def allocate(self, ordinal: int, nbytes: int) -> Address:
        """Device memory. Raises MemoryError."""
        ...

    def free(self, ordinal: int, address: Address) -> None:
        """Give device memory back. Waits for the device."""

    def free_memory(self, ordinal: int) -> int:
        """Bytes of device memory that nobody has."""
        ...

    def pinned(self, nbytes: int) -> Array:
        """Page-locked host memory, as bytes: copies from and to it do not make the host wait. Freed with the array."""
        ...

    def copy_in(self, ordinal: int, target: Address, source: Array, stream: Handle) -> None:
        """Enqueue a copy from contiguous host memory. Pageable memory may be changed once this returns."""

    def copy_out(self, ordinal: int, target: Array, source: Address, stream: Handle) -> None:
        """Enqueue a copy to contiguous host memory. It is there when the stream is done."""

    def copy(self, ordinal: int, target: Address, source: Address, nbytes: int, stream: Handle) -> None:
        """Enqueue a copy within a device."""

    def copy_peer(self, to: int, target: Address, of: int, source: Address, nbytes: int, stream: Handle) -> None:
        """Enqueue a copy from a device to another, in a stream of the one that it goes to."""

    # Streams.

    def stream(self, ordinal: int) -> Handle:
        """A stream that does not wait for the default one."""
        ...

    def wait(self, ordinal: int, stream: Handle) -> None:
        """Wait until a stream is done. The one call, with `elapsed`, in which the host waits for a device."""

    def event(self, ordinal: int, timed: bool = False) -> Handle:
        """An event, which is recorded later."""
        ...

    def record(self, ordinal: int, event: Handle, stream: Handle) -> None:
        """Let an event happen when what is in a stream so far is done."""

    def after(self, ordinal: int, stream: Handle, event: Handle) -> None:
        """Let what is enqueued in a stream from now on wait for an event, also of another device."""

    def done(self, event: Handle) -> bool:
        """Whether an event has happened, without waiting for it."""
        ...

    def elapsed(self, first: Handle, second: Handle) -> float:
        """Seconds between two timed events. Waits for the second."""
        ...

    def drop_event(self, event: Handle) -> None:
        """Give an event back."""

    # Programs.

    def build(self, source: str, architecture: str) -> bytes:
        """The machine code of a CUDA C source, by NVRTC. Raises Refused. Needs no GPU."""
        ...

    def module(self, ordinal: int, code: bytes) -> Handle:
        """Load machine code."""
        ...

    def function(self, ordinal: int, module: Handle, name: str) -> Handle:
        """A kernel of a module."""
        ...

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
        """Enqueue a kernel; `arguments` is the address of an array of addresses of its arguments, read at once."""

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
        """Enqueue out = a b, or out += a b, by cuBLAS: matrices (m, k), (k, n) and (m, n), column by column.

        Args:
            dtype: float16, bfloat16, float32 or float64; halves are summed in float32.
            out_dtype: of the result: the same, or float32 of halves.
            sizes: m, n, k.
            precision: `highest` or `tf32`: what float32 is rounded to before it is multiplied.
        """

    def biases(self) -> str:
        """What adds a bias while a product is written, with its version; "" where cuBLASLt's bindings are missing."""
        ...

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
        """Enqueue out = a b + bias, by cuBLASLt; False where it has no way to. Addresses are multiples of `ALIGNMENT`.

        Args:
            dtype: of all: float16, bfloat16 or float32.
            bias: of m numbers, one for each row.
            workspace: of `WORKSPACE` bytes.
        """
        ...

    # Convolutions.

    def convolutions(self) -> str:
        """What plans convolutions, with its version; "" where cuDNN or its front end is not installed."""
        ...

    def convolution(self, ordinal: int, wanted: Convolution, stream: Handle) -> tuple[Any, int]:
        """A plan for a convolution in a stream, and the bytes that it works in. Raises Refused: there is none."""
        ...

    def convolve(self, ordinal: int, plan: Any, addresses: Mapping[str, Address], workspace: Address) -> None:
        """Enqueue a planned convolution: `addresses` of x, w, y and bias, multiples of `ALIGNMENT`."""

    # Graphs.

    def begin_capture(self, ordinal: int, stream: Handle) -> None:
        """From now on what is enqueued in this stream is written down instead of done."""

    def end_capture(self, ordinal: int, stream: Handle) -> Handle:
        """What was written down, ready to be launched."""
        ...

    def launch_graph(self, ordinal: int, graph: Handle, stream: Handle) -> None:
        """Enqueue all that was written down."""

    def drop_graph(self, graph: Handle) -> None:
        """Give a graph back."""

    # Peers.

    def can_reach(self, ordinal: int, other: int) -> bool:
        """Whether a device reads the memory of another directly; if so, it may from now on."""
        ...

    # Collectives.

    def has_collectives(self) -> bool:
        """Whether NCCL is installed."""
        ...

    def all_reduce(
        self,
        ordinals: tuple[int, ...],
        sources: Sequence[Address],
        targets: Sequence[Address],
        count: int,
        dtype: str,
        streams: Sequence[Handle],
    ) -> None:
        """Enqueue, on each of these devices, the sum of `count` elements of all."""

"""What a device must be able to do so that the kernels of this folder run on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.layout import Shape, row_strides
from hal.codegen.kernels.memory import Memory, Pool
from hal.codegen.target import Target
from hal.plugin import Array, DType, Spec

if TYPE_CHECKING:
    from hal.codegen.dialect import Dialect
    from hal.codegen.kernels.products import Product
    from hal.codegen.kernels.programs import Programs


class Runtime(ABC):
    """One device at work. Everything is enqueued, and done in that order.

    Attributes:
        name: what users write, such as `opencl:0`; `title` is the device's own, for messages.
        dialect: the language of its kernels.
        is_cpu: whether work items are run one after the other by a few threads: then each is given a range.
        is_simulator: whether it checks each access to memory: blocks are then as large as what is in them.
        units: compute units or multiprocessors.
        local: the one work-group size of all kernels that do not choose their own.
        local_memory: bytes that the items of a group may share.
        argument_bytes: what the arguments of one kernel may take.
        max_block: bytes of the largest block of memory.
        tables: whether products read rows of their first factor through a table of offsets.
        halves: whether `multiply` takes float16 and bfloat16.
        pool, programs: memory and compiled programs.
    """

    name: str
    title: str
    dialect: Dialect
    is_cpu = False
    is_simulator = False
    units: int
    local: int
    local_memory: int
    argument_bytes: int
    max_block: int
    tables = False
    halves = False
    pool: Pool
    programs: Programs

    def empty(self, shape: Shape, dtype: DType, made_by: str = "a tensor") -> Buffer:
        """A buffer of elements that lie row by row and are whatever they are."""
        size = 1
        for n in shape:
            size *= n
        memory = self.pool.take(max(1, size * dtype.itemsize), made_by)
        return Buffer(memory, shape, dtype, row_strides(shape), 0)

    @cached_property
    def target(self) -> Target:
        """What generated source must know of the device."""
        return Target(self.is_cpu, 16, 1 if self.is_cpu else self.local, self.units)

    @abstractmethod
    def allocate(self, nbytes: int) -> Any:
        """The driver's object for a block of memory. Raises MemoryError where there is no room."""

    @property
    def pools(self) -> Sequence[Pool]:
        """All pools that share the device's memory."""
        return (self.pool,)

    def deallocate(self, data: Any) -> None:  # noqa: B027  # most drivers' objects do that when they are dropped
        """Give a block back to the driver."""

    @abstractmethod
    def upload(self, array: Array, spec: Spec) -> Buffer:
        """A buffer with the contents of a host array, which may change afterwards."""

    @abstractmethod
    def download(self, buffer: Buffer) -> Array:
        """A new host array with the contents of a buffer whose elements lie row by row."""

    @abstractmethod
    def launch(
        self,
        label: str,
        kernel: Any,
        items: Shape,
        local: Shape,
        *arguments: Any,
        writes: Sequence[Memory] = (),
    ) -> None:
        """Enqueue a kernel with `items` work items in groups of `local`, of which they are whole multiples.

        Args:
            label: the op, for errors.
            arguments: memories, numbers of NumPy, and arrays of NumPy that are passed by value, as structs.
            writes: what it writes into.

        Raises:
            DeviceError: the driver refused.
        """

    @abstractmethod
    def finish(self) -> None:
        """Wait until all that was enqueued is done. Raises DeviceError, with the op, where some of it failed."""

    def release(self, memory: Memory) -> None:
        """Called once when no buffer refers to `memory` any more, at any moment and in any thread."""
        memory.pool.give_back(memory.data, memory.nbytes)

    def multiply(self, label: str, product: Product) -> None:
        """Enqueue a product: here in tiles, which any device with groups of items can."""
        from hal.codegen.kernels.products import tiled

        tiled(self, label, product)

"""Builds CUDA C with NVRTC, loads what was built before, and packs the arguments of launches."""

from __future__ import annotations

import ctypes
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from hal.codegen.dialect import CUDA
from hal.codegen.kernels.memory import Memory
from hal.codegen.kernels.programs import BuildError, Programs
from hal_cuda.driver import OPTIONS, Driver, Failure, Handle, Refused

if TYPE_CHECKING:
    from hal_cuda.driver import Properties

ALIGNMENT = 16  # bytes: what an argument of any type may lie at


class Kernel:
    """A kernel on one device, and the memory that its arguments are written into before a launch.

    Attributes:
        handle: the driver's.
        address: of an array of the addresses of the arguments.
    """

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.address = 0
        self._format: struct.Struct | None = None
        self._memory: Any = None
        self._addresses: Any = None
        self._structs: tuple[int, ...] = ()

    def write(self, arguments: tuple[Any, ...]) -> int:
        """Write the arguments: memories as addresses, numbers and arrays of NumPy by value. Gives `address`.

        To be called under the runtime's lock, which is held until the driver has read them.
        """
        if self._format is None:
            self._prepare(arguments)
        values = [a.data if a.__class__ is Memory else a for a in arguments]
        for i in self._structs:
            values[i] = values[i].tobytes()
        self._format.pack_into(self._memory, 0, *values)  # type: ignore[union-attr]  # made above
        return self.address

    def _prepare(self, arguments: tuple[Any, ...]) -> None:
        """Lay out the arguments: a kernel has the same number of them, of the same types, in every launch."""
        text, places, structs, at = "<", [], [], 0
        for i, a in enumerate(arguments):
            if isinstance(a, Memory):
                kind, size = "Q", 8
            elif isinstance(a, np.ndarray):
                kind, size = f"{a.nbytes}s", a.nbytes
                structs.append(i)
            else:
                kind, size = CODES[a.dtype], a.dtype.itemsize
            gap = -at % ALIGNMENT
            text += f"{gap}x{kind}"
            places.append(at + gap)
            at += gap + size
        self._format = struct.Struct(text)
        room = ctypes.create_string_buffer(at + ALIGNMENT)
        skip = -ctypes.addressof(room) % ALIGNMENT
        self._memory = (ctypes.c_char * at).from_buffer(room, skip)
        first = ctypes.addressof(room) + skip
        self._addresses = (ctypes.c_void_p * len(places))(*(first + p for p in places))
        self._structs = tuple(structs)
        self.address = ctypes.addressof(self._addresses)


CODES = {
    np.dtype(kind): code
    for kind, code in (
        (np.int8, "b"), (np.uint8, "B"), (np.int16, "h"), (np.uint16, "H"), (np.int32, "i"), (np.uint32, "I"),
        (np.int64, "q"), (np.uint64, "Q"), (np.float32, "f"), (np.float64, "d"), (np.bool_, "?"),
    )
}  # fmt: skip


def identity(architecture: str, toolkit: int) -> str:
    """What machine code holds for: a kind of GPU whatever its driver, a generation of the compiler, its options."""
    return f"{architecture}\nCUDA {toolkit // 1000}\n{' '.join(OPTIONS)}"


class CUDAPrograms(Programs):
    """The programs of one GPU, as machine code for it: nothing is left to the driver's own compiler."""

    def __init__(self, driver: Driver, ordinal: int, name: str, title: str, properties: Properties) -> None:
        self.driver, self.ordinal = driver, ordinal
        self.architecture = properties.architecture
        super().__init__(name, title, CUDA, ("cuda", "cu"), identity(self.architecture, properties.toolkit))

    def build(self, source: str) -> tuple[Any, bytes | None]:
        try:
            code = self.driver.build(source, self.architecture)
            return self.driver.module(self.ordinal, code), code
        except (Refused, Failure) as error:
            raise BuildError(str(error)) from None

    def load(self, binary: bytes) -> Any:
        try:
            return self.driver.module(self.ordinal, binary)
        except Failure:  # built for another GPU, or broken off: compile it again
            return None

    def function(self, program: Any, name: str) -> Kernel:
        return Kernel(self.driver.function(self.ordinal, program, name))

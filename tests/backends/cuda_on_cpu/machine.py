"""The host as a GPU: kernels compiled by g++, and device memory in which every access is checked."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from hal.plugin import cache_dir

HERE = Path(__file__).parent
SPAN = 38  # each device has 2**38 bytes of addresses, so that none is ever given out twice
GRAIN = 256  # bytes: what blocks begin at a multiple of; as much lies between two
NO_RESERVE = 0x4000  # MAP_NORESERVE: addresses cost nothing until they are written
UNWRITTEN = 0xFF  # every byte of new memory: NaN in every type of float
OUTCOMES = ("", "cudaErrorIllegalAddress", "cudaErrorLaunchTimeout", "cudaErrorLaunchFailure", "cudaErrorLaunchFailure")

# As NVRTC with --fmad=false: what the source does not write as one rounding is two; denormals are kept.
OPTIONS = [
    "-std=c++17", "-O1", "-shared", "-fPIC", "-nostdlib", "-w", "-march=native", "-fno-strict-aliasing",
    "-ffp-contract=off", "-fno-math-errno", "-fsanitize=kernel-address",
    "--param=asan-stack=0", "--param=asan-globals=0", "--param=asan-instrumentation-with-call-threshold=0",
]  # fmt: skip
_KERNEL = re.compile(r"(?:__global__\s+void|HAL_KERNEL)\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(")
_INSTRUCTION = re.compile(r'asm\s*(?:volatile)?\s*\("([\w.]+) %0, %1;"\s*:\s*"=\w"\((.+?)\)\s*:\s*"\w"\((.+?)\)\);')


def unusable() -> bool:
    """Whether something is missing here."""
    return sys.platform != "linux" or shutil.which("g++") is None


class CompileError(Exception):
    """What g++ said."""


def as_host_code(source: str) -> str:
    """A CUDA C source as g++ compiles it: instructions of PTX are calls, and each kernel has an entry."""
    text = _INSTRUCTION.sub(lambda m: f"{m[2]} = hal_ptx_{m[1].replace('.', '_')}({m[3]});", source)
    entries = "".join(f"HAL_SHIM_ENTRY({name})\n" for name in dict.fromkeys(_KERNEL.findall(source)))
    return f"{text}\n{entries}"


@cache
def stamp() -> bytes:
    """What code is only good with: these files and this processor."""
    parts = [(HERE / name).read_bytes() for name in ("shim.h", "shim.cpp", "machine.py")]
    flags = re.search(rb"^flags.*$", Path("/proc/cpuinfo").read_bytes(), re.MULTILINE)
    return hashlib.sha256(b"".join([*parts, flags[0] if flags else b""])).digest()[:16]


def compiled(source: str) -> bytes:
    """A shared library with the kernels of a CUDA C source.

    Raises:
        CompileError: g++ refuses it.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "kernel.so")
        command = ["g++", *OPTIONS, "-include", str(HERE / "shim.h"), "-x", "c++", "-", "-o", str(out)]
        done = subprocess.run(command, input=as_host_code(source), capture_output=True, text=True, check=False)
        if done.returncode:
            raise CompileError(done.stderr)
        return stamp() + out.read_bytes()


def loaded(code: bytes) -> ctypes.PyDLL | None:
    """Load what `compiled` gave, unless that was for another version of it."""
    if not code.startswith(stamp()) or len(code) <= len(stamp()):
        return None
    shim()
    handle, name = tempfile.mkstemp(".so")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(code[len(stamp()) :])
        return ctypes.PyDLL(name)
    except OSError:
        return None
    finally:
        os.unlink(name)


@cache
def shim() -> Any:
    """The library that runs blocks and checks accesses, compiled once for all processes."""
    file = cache_dir() / "cuda-on-cpu" / f"{stamp().hex()}.so"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}")
        command = ["g++", "-std=c++17", "-O2", "-shared", "-fPIC", str(HERE / "shim.cpp"), "-o", str(part)]
        subprocess.run(command, check=True)
        part.replace(file)
    library = ctypes.PyDLL(str(file), mode=ctypes.RTLD_GLOBAL)
    library.hal_shim_memory.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_uint, ctypes.c_size_t]
    library.hal_shim_block.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
    library.hal_shim_is_valid.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
    library.hal_shim_reach.argtypes = [ctypes.c_ulonglong]
    return library


class Function:
    """A kernel of a library.

    Attributes:
        name: its own.
        shared: bytes of shared memory that a block takes.
    """

    def __init__(self, library: ctypes.PyDLL, name: str) -> None:
        self.name = name
        self._pack, self._run = getattr(library, f"hal_pack_{name}"), getattr(library, f"hal_run_{name}")
        self._pack.argtypes = [ctypes.c_size_t, ctypes.c_char_p]
        self._pack.restype = ctypes.c_long
        self._run.argtypes = [ctypes.POINTER(ctypes.c_uint), ctypes.c_char_p]
        self.shared = int(getattr(library, f"hal_shared_{name}")())

    def packed(self, addresses: int) -> Any:
        """A copy of the arguments whose addresses are there."""
        room = ctypes.create_string_buffer(self._pack(addresses, None) + 16)
        self._pack(addresses, room)
        return room

    def run(
        self, memory: DeviceMemory, grid: tuple[int, ...], block: tuple[int, ...], packed: Any, reach: int
    ) -> tuple[str, str]:
        """Run all blocks, on a device that reaches those whose bits are set: CUDA's error and what was wrong, or ""."""
        library = memory.shim()
        library.hal_shim_reach(reach)
        outcome = self._run((ctypes.c_uint * 6)(*grid, *block), packed)
        report = (ctypes.c_char * 512).in_dll(library, "hal_shim_report").value.decode() if outcome else ""
        return OUTCOMES[outcome], f"{self.name}: {report}" if outcome else ""


class DeviceMemory:
    """The memory of some devices, in one range of addresses: whatever is not in a block may not be touched."""

    def __init__(self, devices: int, nbytes: int) -> None:
        self.limit = nbytes
        self.used = [0] * devices
        self.blocks: dict[int, int] = {}
        size = devices << SPAN
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE
        self._memory, self._valid = mmap.mmap(-1, size, flags=flags), mmap.mmap(-1, size >> 3, flags=flags)
        self.base, valid = (ctypes.addressof(ctypes.c_char.from_buffer(m)) for m in (self._memory, self._valid))
        self._next = [self.base + (i << SPAN) + GRAIN for i in range(devices)]
        self._place = (self.base, size, SPAN, valid)

    def shim(self) -> Any:
        """The library, checking accesses to this memory."""
        library = shim()
        library.hal_shim_memory(*self._place)
        return library

    def allocate(self, ordinal: int, nbytes: int) -> int:
        """A block of a device. Raises MemoryError."""
        if self.used[ordinal] + nbytes > self.limit:
            raise MemoryError(f"cudaErrorMemoryAllocation: {nbytes} bytes")
        address = self._next[ordinal]
        self._next[ordinal] += -(-nbytes // GRAIN) * GRAIN + GRAIN
        ctypes.memset(address, UNWRITTEN, nbytes)
        self.shim().hal_shim_block(address, nbytes, 1)
        self.blocks[address] = nbytes
        self.used[ordinal] += nbytes
        return address

    def free(self, ordinal: int, address: int) -> bool:
        """Give a block back; False if it is none."""
        nbytes = self.blocks.pop(address, None)
        if nbytes is None or (address - self.base) >> SPAN != ordinal:
            return False
        self.shim().hal_shim_block(address, nbytes, 0)
        self.used[ordinal] -= nbytes
        start, stop = -(-(address - self.base) // mmap.PAGESIZE), (address - self.base + nbytes) // mmap.PAGESIZE
        if start < stop:
            self._memory.madvise(mmap.MADV_DONTNEED, start * mmap.PAGESIZE, (stop - start) * mmap.PAGESIZE)
        return True

    def holds(self, ordinal: int, address: int, nbytes: int) -> bool:
        """Whether so many bytes of a device, from an address on, are in a block."""
        return (address - self.base) >> SPAN == ordinal and bool(self.shim().hal_shim_is_valid(address, nbytes))

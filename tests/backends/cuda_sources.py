"""Every source that hal_cuda gives to NVRTC, without a GPU: all ops run on all their samples, and nothing is computed.

`sources()` notes them, `compiled()` has NVRTC make machine code of them and tells what ptxas says of each kernel.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import hal
from hal import ops
from hal.dtypes import DType
from hal.errors import HalError
from hal.recording import no_grad
from hal.testing.calls import FLOATS, call_of, has_floats, own_dtype, run_op, samples_of
from hal_cuda import CUDA
from hal_cuda.driver import OPTIONS, Properties

BATCH = 40  # sources that are compiled as one: most of what compiling a small one takes is the same for all


class NoGPU:
    """A `hal_cuda.driver.Driver` that notes what is to be compiled and does nothing.

    Attributes:
        sources: all that was to be built, with the first name of a kernel that was asked for of it.
    """

    collectives = False

    def __init__(self) -> None:
        self.sources: list[str] = []
        self._numbers = itertools.count(1 << 20, 1 << 20)

    def count(self) -> int:
        return 1

    def properties(self, ordinal: int) -> Properties:
        return Properties("no GPU", (9, 0), 80 << 30, 132, 1024, 48 << 10, 50 << 20, 0, "none", 13000, 13000)

    def free_memory(self, ordinal: int) -> int:
        return 80 << 30

    def pinned(self, nbytes: int) -> Any:
        return np.zeros(nbytes, np.uint8)

    def copy_out(self, ordinal: int, target: Any, source: int, stream: int) -> None:
        target[...] = 0

    def build(self, source: str, architecture: str) -> bytes:
        self.sources.append(source)
        return b""

    def __getattr__(self, name: str) -> Any:
        """Everything else: a handle, a new one each time, and no effect."""
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: next(self._numbers)


def sources(floats: Sequence[DType] = FLOATS, most: int | None = None) -> list[str]:
    """The sources of all ops of the table.

    Args:
        floats: the dtypes in which each sample of floats is drawn; others are as they are.
        most: so many samples of an op, spread over all; default: all.
    """
    driver = NoGPU()
    device = CUDA(driver, "nogpu").devices()[0]  # it has what a driver has, and does nothing
    with tempfile.TemporaryDirectory() as folder, _set(HAL_CACHE_DIR=folder, HAL_FALLBACK="allow"), no_grad():
        for name in ops.TABLE:
            found = list(enumerate(samples_of(name)))
            for number, sample in found[:: max(1, -(-len(found) // most)) if most else 1]:
                for dtype in floats if has_floats(sample) else (own_dtype(sample),):
                    with suppress(HalError, IndexError, ValueError):  # not in this dtype, or zeros are no indices here
                        call = call_of(name, number, dtype, device)
                        run_op(call, [hal.tensor(x, device=device) for x in call.inputs])
    return list(dict.fromkeys(driver.sources))


class _set:
    def __init__(self, **values: str) -> None:
        self.values = values

    def __enter__(self) -> None:
        self.before = {name: os.environ.get(name) for name in self.values}
        os.environ.update(self.values)

    def __exit__(self, *error: object) -> None:
        for name, value in self.before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


# NVRTC.


@dataclass(frozen=True)
class Built:
    """What ptxas says of a kernel.

    Attributes:
        name: of the kernel.
        architecture: such as `sm_80`.
        registers: of a thread.
        shared: bytes of shared memory of a block.
        stack: bytes of a thread's own memory for arrays that are no registers.
        spilled: bytes that are written and read because registers do not suffice.
    """

    name: str
    architecture: str
    registers: int
    shared: int
    stack: int
    spilled: int


def nvrtc() -> Any:
    """NVIDIA's compiler as a library, from the package nvidia-cuda-nvrtc, or None."""
    found = [
        f for p in sys.path for f in sorted(Path(p).glob("nvidia/*/lib/libnvrtc.so.*")) if "builtins" not in f.name
    ]
    return ctypes.CDLL(str(found[0])) if found else None


def together(sources: Sequence[str], first: int = 0) -> str:
    """Several sources as one: each in a namespace, its macros undefined behind it, its kernels numbered."""
    parts = []
    for i, source in enumerate(sources, first):
        names = dict.fromkeys(re.findall(r"^\s*#define (\w+)", source, re.MULTILINE))
        body = re.sub(r"^HAL_KERNEL (\w+)", rf"HAL_KERNEL of_{i}_\1", source, flags=re.MULTILINE)
        parts += [f"namespace in_{i} {{\n{body}\n}}\n", *(f"#undef {name}\n" for name in names)]
    return "".join(parts)


_SAID = re.compile(
    r"Compiling entry function '(?:of_\d+_)?(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
    r"(\d+) bytes spill loads.*?Used (\d+) registers(?:[^\n]*?(\d+) bytes smem)?",
    re.DOTALL,
)


def build(library: Any, source: str, words: Sequence[str]) -> tuple[bytes | None, str]:
    """What NVRTC makes of a source with these options: machine code or None, and what it says."""
    program, size, code = ctypes.c_void_p(), ctypes.c_size_t(), None
    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    options = (ctypes.c_char_p * len(words))(*(word.encode() for word in words))
    status = library.nvrtcCompileProgram(program, len(words), options)
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    if status == 0:
        library.nvrtcGetCUBINSize(program, ctypes.byref(size))
        room = ctypes.create_string_buffer(size.value)
        library.nvrtcGetCUBIN(program, room)
        code = room.raw
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return code, log.value.decode()


def compiled(library: Any, source: str, architecture: str) -> list[Built]:
    """What ptxas says of the kernels of a source.

    Raises:
        AssertionError: it does not compile; the message is the compiler's.
    """
    code, told = build(library, source, [f"--gpu-architecture={architecture}", "--ptxas-options=-v", *OPTIONS])
    assert code is not None, told
    return [
        Built(m[1], architecture, int(m[5]), int(m[6] or 0), int(m[2]), int(m[3]) + int(m[4]))
        for m in _SAID.finditer(told)
    ]


def all_compiled(library: Any, sources: Sequence[str], architecture: str) -> list[Built]:
    """Compile many sources, in batches and as many threads as there are processors."""
    batches = [together(sources[i : i + BATCH], i) for i in range(0, len(sources), BATCH)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda text: compiled(library, text, architecture), batches)
    return [built for batch in found for built in batch]

"""PoCL 3.0, which pip brings: what its compiler need not read, and what it keeps itself.

It begins each compilation with a header of 1 MB that declares every function of OpenCL for every vector: 85 of 100 ms
for a small kernel. Kernels here call few of them, which are declared below instead. And to give out a program's binary
it compiles all kernels once more, for groups of any size: 30 to 150 ms for what it keeps itself in a cache of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from hal.codegen.dialect import OPENCL
from hal.plugin import cache_dir

VARIABLE = "POCL_CACHE_DIR"
WITHOUT_HEADER = "-D_OPENCL_H_"
_ONE = (
    "acos", "acosh", "asin", "asinh", "atan", "atanh", "cbrt", "ceil", "cos", "cosh", "erf", "erfc", "exp", "exp2",
    "expm1", "fabs", "floor", "lgamma", "log", "log10", "log1p", "log2", "rint", "round", "rsqrt", "sin", "sinh",
    "sqrt", "tan", "tanh", "tgamma", "trunc",
)  # fmt: skip
_TWO = ("atan2", "copysign", "fmax", "fmin", "fmod", "hypot", "nextafter", "pow")
_PLACES = (
    "get_global_id", "get_global_size", "get_group_id", "get_num_groups", "get_local_id", "get_local_size",
)  # fmt: skip
_PURE = "__attribute__((overloadable, const))"


def is_here(device: Any) -> bool:
    """Whether a device is one of this PoCL: others have other headers."""
    return "PoCL 3.0" in device.platform.version


@contextmanager
def kept_here() -> Iterator[None]:
    """A block in which PoCL, when it starts, takes HAL's cache for the folder where it keeps compiled kernels.

    It is no device at all if it cannot write there: then it keeps them where it does by default.
    """
    folder = cache_dir() / "opencl" / "pocl"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if VARIABLE in os.environ or not os.access(folder, os.W_OK):
        yield
        return
    os.environ[VARIABLE] = str(folder)
    try:
        yield
    finally:  # a child process may have another cache
        del os.environ[VARIABLE]


def _functions(kind: str) -> str:
    lines = [f"{kind} {_PURE} {name}({kind});" for name in _ONE]
    lines += [f"{kind} {_PURE} {name}({kind}, {kind});" for name in _TWO]
    lines += [f"{kind} {_PURE} ldexp({kind}, int);", f"{kind} {_PURE} fma({kind}, {kind}, {kind});"]
    return "\n".join(lines)


def _vectors(kind: str) -> str:
    return " ".join(f"typedef {kind} {kind}{n} __attribute__((ext_vector_type({n})));" for n in (2, 4, 8, 16))


_DECLARED = f"""typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef __SIZE_TYPE__ size_t;
#define INFINITY (__builtin_inff())
#define NAN (__builtin_nanf(""))
#define CLK_LOCAL_MEM_FENCE 1
#define as_int(x) __builtin_astype((x), int)
#define as_float(x) __builtin_astype((x), float)
#define as_long(x) __builtin_astype((x), long)
#define as_double(x) __builtin_astype((x), double)
void __attribute__((overloadable, convergent)) barrier(uint);
ulong {_PURE} mul_hi(ulong, ulong);
float __attribute__((overloadable, pure)) vload_half(size_t, __global const half *);
void __attribute__((overloadable)) vstore_half_rte(float, size_t, __global half *);
{_vectors("int")}
{_vectors("float")}
{chr(10).join(f"size_t {_PURE} {name}(uint);" for name in _PLACES)}
{_functions("float")}
"""
_DOUBLE = f"{OPENCL.float64}{_vectors('double')}\n{_functions('double')}\n"
DIALECT = replace(OPENCL, first=_DECLARED + OPENCL.first, float64=_DOUBLE)

"""The words in which OpenCL C and CUDA C differ, as macros: one kernel source is then valid in both.

A source is written with the words of `WORDS` and begins with the prelude of its dialect. What a device can do (the
largest group, the vectors its compiler likes) is no matter of words and stands in a `Target`.
"""

from __future__ import annotations

from dataclasses import dataclass

WORDS = """
KERNEL        before a kernel's name
FUNCTION      before the result of a function that kernels call
GLOBAL        before the type of a pointer to the device's memory
LOCAL         before an array that the items of a group share
BARRIER       a wait of all items of a group for what each wrote into LOCAL memory
GROUP(d)      which group this is along axis d; GROUPS(d) how many there are
ITEM(d)       which item of its group this is; ITEMS(d) how many there are
NOT_A_NUMBER  a float that is none; INFINITE the largest float
FLOAT_BITS(x), BITS_FLOAT(i)    the bits of a float as an int, and back; DOUBLE_BITS, BITS_DOUBLE for a double and long
int8, uint8, int16, uint16, int32, uint32, int64, uint64    integers of so many bits, as types
"""

_INTEGERS = {
    "int8": "char", "uint8": "uchar", "int16": "short", "uint16": "ushort",
    "int32": "int", "uint32": "uint", "int64": "long", "uint64": "ulong",
}  # fmt: skip

_CUDA_INTEGERS = {
    "int8": "signed char", "uint8": "unsigned char", "int16": "short", "uint16": "unsigned short",
    "int32": "int", "uint32": "unsigned int", "int64": "long long", "uint64": "unsigned long long",
}  # fmt: skip


def _named(macros: dict[str, str]) -> str:
    return "".join(f"#define {name} {text}\n" for name, text in macros.items())


@dataclass(frozen=True)
class Dialect:
    """A C-like language.

    Attributes:
        name: of the language, for messages.
        prelude: what a source begins with.
        types: the type of elements in memory by the name of hal's dtype; a bool is a byte.
        float64: what a source that uses double begins with, before the prelude.
        float16: the same for half.
    """

    name: str
    prelude: str
    types: dict[str, str]
    float64: str = ""
    float16: str = ""


OPENCL = Dialect(
    "OpenCL C",
    "#pragma OPENCL FP_CONTRACT ON\n"
    + _named(
        {
            "KERNEL": "__kernel void",
            "FUNCTION": "",
            "GLOBAL": "__global",
            "LOCAL": "__local",
            "BARRIER": "barrier(CLK_LOCAL_MEM_FENCE)",
            "GROUP(d)": "get_group_id(d)",
            "GROUPS(d)": "get_num_groups(d)",
            "ITEM(d)": "get_local_id(d)",
            "ITEMS(d)": "get_local_size(d)",
            "NOT_A_NUMBER": "NAN",
            "INFINITE": "INFINITY",
            "FLOAT_BITS(x)": "as_int(x)",
            "BITS_FLOAT(i)": "as_float(i)",
            "DOUBLE_BITS(x)": "as_long(x)",
            "BITS_DOUBLE(i)": "as_double(i)",
            **_INTEGERS,
        }
    ),
    {**_INTEGERS, "bool": "uchar", "float16": "half", "float32": "float", "float64": "double"},
    float64="#pragma OPENCL EXTENSION cl_khr_fp64 : enable\n",
    float16="#pragma OPENCL EXTENSION cl_khr_fp16 : enable\n",
)

CUDA = Dialect(
    "CUDA C",
    _named(
        {
            "KERNEL": 'extern "C" __global__ void',
            "FUNCTION": "__device__ static inline",
            "GLOBAL": "",
            "LOCAL": "__shared__",
            "BARRIER": "__syncthreads()",
            "GROUP(d)": "((d) == 0 ? blockIdx.x : (d) == 1 ? blockIdx.y : blockIdx.z)",
            "GROUPS(d)": "((d) == 0 ? gridDim.x : (d) == 1 ? gridDim.y : gridDim.z)",
            "ITEM(d)": "((d) == 0 ? threadIdx.x : (d) == 1 ? threadIdx.y : threadIdx.z)",
            "ITEMS(d)": "((d) == 0 ? blockDim.x : (d) == 1 ? blockDim.y : blockDim.z)",
            "NOT_A_NUMBER": "__int_as_float(0x7fc00000)",
            "INFINITE": "__int_as_float(0x7f800000)",
            "FLOAT_BITS(x)": "__float_as_int(x)",
            "BITS_FLOAT(i)": "__int_as_float(i)",
            "DOUBLE_BITS(x)": "__double_as_longlong(x)",
            "BITS_DOUBLE(i)": "__longlong_as_double(i)",
            **_CUDA_INTEGERS,
        }
    ),
    {**_CUDA_INTEGERS, "bool": "unsigned char", "float16": "__half", "float32": "float", "float64": "double"},
    float16="#include <cuda_fp16.h>\n",
)

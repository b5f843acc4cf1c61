"""The words in which OpenCL C and CUDA C differ, as macros: one kernel source is then valid in both.

| word | meaning |
|---|---|
| `HAL_KERNEL` | before a kernel's name |
| `HAL_FUNCTION` | before the result of a function that kernels call |
| `HAL_GLOBAL`, `HAL_LOCAL` | of the device's memory; of an array that the items of a group share |
| `HAL_BARRIER` | a wait of all items of a group for what each wrote into `HAL_LOCAL` memory |
| `HAL_GROUP(d)`, `HAL_GROUPS(d)` | which group this is along axis d, and how many there are |
| `HAL_ITEM(d)`, `HAL_ITEMS(d)` | which item of its group this is, and how many there are |
| `HAL_INDEX`, `HAL_TOTAL` | which of all items this is along the first axis, and how many there are: `i64` |
| `f32`, `f64`, `i8` to `i64`, `u8` to `u64` | types of numbers in memory and in registers |
| `f16`, `bf16`, `b8` | types in memory only: `hal_load_f16(pointer)` and `hal_store_f16(pointer, value)` and so on |
| `HAL_INDEPENDENT` | before a loop whose turns touch no memory of each other's, so that it may become vectors |
| `HAL_INDEPENDENT_SHORT` | the same for a loop of few turns: short vectors |
| `hal_bits_f32(x)`, `hal_float_f32(i)` | the bits of a number as an integer of its size, and back; also for f64 |
| `hal_multiply_add(a, b, c)` | a b + c of one type; of floats in one rounding where that is one instruction |
| `hal_high_u64(a, b)` | the upper half of the product of two 64-bit integers |
| `INFINITY`, `NAN` | numbers of float |
| `restrict` | of pointers: nothing else refers to the same elements |
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Dialect:
    """A C-like language.

    Attributes:
        name: of the language, for messages.
        words: macros for the words in which languages differ, by word.
        types: the type of a number by its name here, such as `f32`.
        float64: what a source that uses double begins with.
        half: functions that read and write float16.
        first: what every source begins with.
        inlined: instead of built-in functions that are calls on some device, what its compiler makes instructions of.
    """

    name: str
    words: dict[str, str]
    types: dict[str, str]
    float64: str
    half: str
    first: str = ""
    inlined: tuple[str, str] = ("", "")  # for float, and what sources with double need besides

    def prelude(self, text: str) -> str:
        """What a source must begin with whose kernels, and the functions that they call, are `text`."""

        def uses(name: str) -> bool:
            return re.search(rf"(?<![a-z]){name}(?!\d)", text) is not None

        parts = [self.first, self.float64 if uses("f64") else ""]
        parts += [f"#define {word} {meaning}\n" for word, meaning in self.words.items()]
        parts += [f"typedef {self.types[name]} {name};\n" for name in self.types if name in _ALWAYS or uses(name)]
        if any(name in text for name in _INLINED_NAMES):
            single, double = self.inlined
            parts.append(single.replace("{double}", double if uses("f64") else ""))
        parts += [
            functions for name, functions in (("b8", _BOOL), ("bf16", _BFLOAT16), ("f16", self.half)) if uses(name)
        ]
        return "".join(parts)


_ALWAYS = ("u8", "u16", "i32", "u32", "i64", "f32")  # types that the words and functions of all dialects are made of
_BOOL = """HAL_FUNCTION i32 hal_load_b8(HAL_GLOBAL const b8 *p) { return *p != 0; }
HAL_FUNCTION void hal_store_b8(HAL_GLOBAL b8 *p, i32 x) { *p = x != 0; }
"""

# The upper half of a float32; when written, rounded to the nearest, and to the even one of two.
_BFLOAT16 = """HAL_FUNCTION f32 hal_load_bf16(HAL_GLOBAL const bf16 *p) { return hal_float_f32((i32)((u32)*p << 16)); }
HAL_FUNCTION void hal_store_bf16(HAL_GLOBAL bf16 *p, f32 x) {
  const u32 bits = (u32)hal_bits_f32(x);
  *p = x != x ? (bf16)0x7fc0 : (bf16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
"""

# PoCL's own are calls for one number each: `rint` takes 150 times as long as the instruction.
_INLINED_NAMES = ("fabs", "floor", "ceil", "trunc", "rint", "sqrt")
_INLINED = (
    """#if defined(__clang__) && (defined(__x86_64__) || defined(__aarch64__))
#if __has_builtin(__builtin_elementwise_abs)
#define fabs __builtin_elementwise_abs
#define floor __builtin_elementwise_floor
#define ceil __builtin_elementwise_ceil
#define trunc __builtin_elementwise_trunc
#define rint __builtin_elementwise_roundeven
f32 __attribute__((overloadable)) hal_sqrt(f32 x) { return __builtin_sqrtf(x); }
{double}#define sqrt hal_sqrt
#endif
#endif
""",
    "f64 __attribute__((overloadable)) hal_sqrt(f64 x) { return __builtin_sqrt(x); }\n",
)

OPENCL = Dialect(
    "OpenCL C",
    {
        "HAL_KERNEL": "__kernel void",
        "HAL_FUNCTION": "",
        "HAL_GLOBAL": "__global",
        "HAL_LOCAL": "__local",
        "HAL_BARRIER": "barrier(CLK_LOCAL_MEM_FENCE)",
        "HAL_INDEPENDENT": '_Pragma("clang loop vectorize(assume_safety)")',
        "HAL_INDEPENDENT_SHORT": (
            '_Pragma("clang loop vectorize(assume_safety) vectorize_width(4) interleave_count(1)")'
        ),
        "HAL_GROUP(d)": "get_group_id(d)",
        "HAL_GROUPS(d)": "get_num_groups(d)",
        "HAL_ITEM(d)": "get_local_id(d)",
        "HAL_ITEMS(d)": "get_local_size(d)",
        "HAL_INDEX": "(i64)get_global_id(0)",
        "HAL_TOTAL": "(i64)get_global_size(0)",
        "hal_bits_f32(x)": "as_int(x)",
        "hal_float_f32(i)": "as_float(i)",
        "hal_bits_f64(x)": "as_long(x)",
        "hal_float_f64(i)": "as_double(i)",
        "hal_multiply_add(a, b, c)": "((a) * (b) + (c))",
        "hal_high_u64(a, b)": "mul_hi((u64)(a), (u64)(b))",
    },
    {
        "i8": "char",
        "u8": "uchar",
        "i16": "short",
        "u16": "ushort",
        "i32": "int",
        "u32": "uint",
        "i64": "long",
        "u64": "ulong",
        "f32": "float",
        "f64": "double",
        "b8": "uchar",
        "bf16": "ushort",
        "f16": "half",
    },
    float64="#pragma OPENCL EXTENSION cl_khr_fp64 : enable\n",
    # Reading and writing halves needs no extension: only computing in them does.
    half="""HAL_FUNCTION f32 hal_load_f16(HAL_GLOBAL const f16 *p) { return vload_half(0, p); }
HAL_FUNCTION void hal_store_f16(HAL_GLOBAL f16 *p, f32 x) { vstore_half_rte(x, 0, p); }
""",
    first="#pragma OPENCL FP_CONTRACT ON\n",
    inlined=_INLINED,
)

CUDA = Dialect(
    "CUDA C",
    {
        "HAL_KERNEL": 'extern "C" __global__ void',
        "HAL_FUNCTION": "__device__ static inline",
        "HAL_GLOBAL": "",
        "HAL_LOCAL": "__shared__",
        "HAL_BARRIER": "__syncthreads()",
        "HAL_INDEPENDENT": "",
        "HAL_INDEPENDENT_SHORT": "",
        "HAL_GROUP(d)": "((d) == 0 ? blockIdx.x : (d) == 1 ? blockIdx.y : blockIdx.z)",
        "HAL_GROUPS(d)": "((d) == 0 ? gridDim.x : (d) == 1 ? gridDim.y : gridDim.z)",
        "HAL_ITEM(d)": "((d) == 0 ? threadIdx.x : (d) == 1 ? threadIdx.y : threadIdx.z)",
        "HAL_ITEMS(d)": "((d) == 0 ? blockDim.x : (d) == 1 ? blockDim.y : blockDim.z)",
        "hal_bits_f32(x)": "__float_as_int(x)",
        "hal_float_f32(i)": "__int_as_float(i)",
        "hal_bits_f64(x)": "__double_as_longlong(x)",
        "hal_float_f64(i)": "__longlong_as_double(i)",
        "hal_high_u64(a, b)": "__umul64hi(a, b)",
        "HAL_INDEX": "((i64)blockIdx.x * blockDim.x + threadIdx.x)",
        "HAL_TOTAL": "((i64)gridDim.x * blockDim.x)",
        "restrict": "__restrict__",
        "INFINITY": "__int_as_float(0x7f800000)",
        "NAN": "__int_as_float(0x7fc00000)",
    },
    {
        "i8": "signed char",
        "u8": "unsigned char",
        "i16": "short",
        "u16": "unsigned short",
        "i32": "int",
        "u32": "unsigned int",
        "i64": "long long",
        "u64": "unsigned long long",
        "f32": "float",
        "f64": "double",
        "b8": "unsigned char",
        "bf16": "unsigned short",
        "f16": "unsigned short",
    },
    float64="",
    # Kernels are compiled with --fmad=false: else what an op rounds twice would depend on what it was fused with.
    first="""template <class T> __device__ static inline T hal_multiply_add(T a, T b, T c) { return a * b + c; }
__device__ static inline float hal_multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ static inline double hal_multiply_add(double a, double b, double c) { return fma(a, b, c); }
""",
    # Without a header, so that sources compile where there is nothing but NVRTC.
    half="""HAL_FUNCTION f32 hal_load_f16(const f16 *p) {
  f32 x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(*p));
  return x;
}
HAL_FUNCTION void hal_store_f16(f16 *p, f32 x) {
  f16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
  *p = y;
}
""",
)

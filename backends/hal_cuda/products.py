"""Products by cuBLAS, with a bias by cuBLASLt where it is installed; in tiles where strides are too odd for both."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.products import Bias, Factor, Product, Triple, tiled
from hal.plugin import dtypes
from hal_cuda.driver import ALIGNMENT, WORKSPACE, Matrix

if TYPE_CHECKING:
    from hal_cuda.runtime import CUDARuntime

NARROW = frozenset({dtypes.float16, dtypes.bfloat16, dtypes.float32})  # what cuDNN and cuBLASLt take
BY_LIBRARY = NARROW | {dtypes.float64}


def precision() -> str:
    """What float32 is rounded to before it is multiplied: `highest`, or `tf32` with HAL_CUDA_TF32=1."""
    return "tf32" if os.environ.get("HAL_CUDA_TF32", "") not in ("", "0") else "highest"


def multiply(runtime: CUDARuntime, label: str, given: Product) -> None:
    """Enqueue a product."""
    tables = any(not isinstance(n, int) for x in (given.a, given.b) for n in (x.row, x.column))
    if given.dtype not in BY_LIBRARY or tables or given.out.places is not None or given.parts > 1:
        assert given.out_dtype in (None, given.dtype), "tiles are of one dtype"
        tiled(runtime, label, given)
        return
    (rows, columns, terms), out = given.sizes, given.out
    a, left = _readable(given.a, rows, terms, given)
    b, right = _readable(given.b, terms, columns, given)
    given = given._replace(a=a, b=b)
    out_dtype, itemsize = given.out_dtype or given.dtype, given.dtype.itemsize
    # Rows of ours are columns of cuBLAS's: what it is asked for is the transposed result, b' a'.
    sizes, calls = (columns, rows, terms), []
    for first_a, first_b, first_out, step_a, step_b, count in _batches(given):
        of_b = Matrix(b.memory.data + (b.offset + first_b) * itemsize, right[0], step_b, right[1])
        of_a = Matrix(a.memory.data + (a.offset + first_a) * itemsize, left[0], step_a, left[1])
        to = Matrix(out.memory.data + (out.offset + first_out) * out_dtype.itemsize, out.row, out.batch)
        calls.append((of_b, of_a, to, count))
    if given.bias is not None:
        if len(calls) == 1 and _with_bias(runtime, given, given.bias, sizes, *calls[0]):
            return
        _put_bias(given, given.bias)
    for of_b, of_a, to, count in calls:
        runtime.driver.multiply(
            runtime.ordinal, given.dtype.name, out_dtype.name, sizes, of_b, of_a, to, count, given.bias is not None,
            precision(), runtime.stream,
        )  # fmt: skip


def _with_bias(
    runtime: CUDARuntime, given: Product, bias: Bias, sizes: tuple[int, int, int], b: Matrix, a: Matrix, out: Matrix,
    count: int,
) -> bool:  # fmt: skip
    """Enqueue a product to which its bias is added as it is written, where cuBLASLt is there and does that."""
    place = bias.memory.data + bias.offset * given.dtype.itemsize
    even = bias.axis == 1 and bias.batch == 0 and (bias.stride == 1 or sizes[0] == 1)
    aligned = not any(address % ALIGNMENT for address in (place, b.address, a.address, out.address))
    known = given.dtype in NARROW and given.out_dtype in (None, given.dtype)
    if not (runtime.biases and even and aligned and known):
        return False
    return runtime.driver.multiply_add(
        runtime.ordinal, given.dtype.name, sizes, b, a, out, count, place, precision(), runtime.workspace(WORKSPACE),
        runtime.stream,
    )  # fmt: skip


def _readable(x: Factor, rows: int, columns: int, given: Product) -> tuple[Factor, tuple[int, bool]]:
    """A factor that cuBLAS can read, and how far apart its rows are, or with True its columns."""
    assert isinstance(x.row, int)
    assert isinstance(x.column, int)
    if (x.column == 1 or columns == 1) and (x.row >= columns or rows == 1):
        return x, (max(x.row, columns, 1), False)
    if (x.row == 1 or rows == 1) and (x.column >= rows or columns == 1):
        return x, (max(x.column, rows, 1), True)
    from hal.codegen.kernels.movement import copied

    sizes: Triple = tuple(n if s else 1 for n, s in zip(given.batch, x.batch, strict=True))
    there = Buffer(x.memory, (*sizes, rows, columns), given.dtype, (*x.batch, x.row, x.column), x.offset)
    own = copied(there)
    steps: Triple = tuple(s if n > 1 else 0 for n, s in zip(sizes, own.strides, strict=False))
    return Factor(own.memory, own.offset, columns, 1, steps), (columns, False)


def _batches(given: Product) -> list[tuple[int, int, int, int, int, int]]:
    """Calls that make up a batch: where A, B and the result begin, the steps of A and B, and how many matrices.

    The axes of the batch along which both factors step evenly become one.
    """
    sizes, of_a, of_b = given.batch, given.a.batch, given.b.batch
    inner = 2  # the last axis is always part of a call
    count, step_a, step_b = sizes[2], of_a[2], of_b[2]
    while inner and (
        sizes[inner - 1] == 1 or (of_a[inner - 1] == step_a * count and of_b[inner - 1] == step_b * count) or count == 1
    ):
        inner -= 1
        if count == 1:
            step_a, step_b = of_a[inner], of_b[inner]
        count *= sizes[inner]
    calls = []
    for i in range(sizes[0] if inner > 0 else 1):
        for j in range(sizes[1] if inner > 1 else 1):
            at: Triple = (i, j, 0)
            place = (i * sizes[1] + j) * sizes[2] if inner > 1 else i * sizes[1] * sizes[2]
            first_a = sum(p * s for p, s in zip(at, of_a, strict=True))
            first_b = sum(p * s for p, s in zip(at, of_b, strict=True))
            calls.append((first_a, first_b, place * given.out.batch, step_a, step_b, count))
    return calls


def _put_bias(given: Product, bias: Bias) -> None:
    """Fill the result with the bias, to which the product is added."""
    from hal.codegen.kernels.movement import copy_into

    rows, columns, _ = given.sizes
    count, out = given.matrices, given.out
    groups = given.batch[2]
    shape = (count // groups, groups, rows, columns)
    steps = (0, bias.batch, bias.stride, 0) if bias.axis == 0 else (0, bias.batch, 0, bias.stride)
    source = Buffer(bias.memory, shape, given.dtype, steps, bias.offset)
    target = Buffer(out.memory, shape, given.dtype, (out.batch * groups, out.batch, out.row, 1), out.offset)
    copy_into(source, target)

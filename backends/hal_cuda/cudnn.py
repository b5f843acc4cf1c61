"""Convolutions that cuDNN makes where it is installed; what it declines is left to those of `convolution.py`.

Images, weights and results are given to it row by row, as they lie everywhere else here: where an engine wants channels
last it turns them itself, in the memory that it works in. (The elementwise kernels between two convolutions would write
rows in any case.)
"""

from __future__ import annotations

from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.layout import Shape, row_strides
from hal.codegen.kernels.movement import copied, in_rows
from hal.codegen.kernels.products import Triple
from hal.plugin import dtypes
from hal_cuda.driver import ALIGNMENT, Convolution, Layout
from hal_cuda.products import NARROW, precision
from hal_cuda.runtime import CUDARuntime, address_of


def by_cudnn(
    label: str, made: str, x: Buffer, w: Buffer, y: Buffer, bias: Buffer | None, axes: int,
    padding: Triple, stride: Triple, dilation: Triple,
) -> bool:  # fmt: skip
    """Enqueue a convolution by cuDNN, if it is there and takes it.

    Args:
        made: which of `x`, `w` and `y`, with three axes of space each, is computed; it lies in rows.
        axes: how many axes of space are meant, the last ones.
    """
    runtime, result = x.memory.runtime, {"x": x, "w": w, "y": y}[made]
    assert isinstance(runtime, CUDARuntime)
    if not runtime.convolutions or x.dtype not in NARROW or address_of(result) % ALIGNMENT:
        return False
    axes = max(axes, 2)
    of_x, of_w, of_y = (_layout((*b.shape[:2], *b.shape[5 - axes :])) for b in (x, w, y))
    exactly = precision() if x.dtype is dtypes.float32 else "highest"
    window = (padding[3 - axes :], stride[3 - axes :], dilation[3 - axes :])
    wanted = Convolution(made, x.dtype.name, of_x, of_w, of_y, *window, bias is not None, exactly)
    planned = runtime.plan(label, wanted)
    if planned is None:
        return False
    given = {name: b if name == made else _readable(b) for name, b in (("x", x), ("w", w), ("y", y))}
    if bias is not None:
        given["bias"] = _readable(bias)
    return runtime.convolve(label, planned, given)


def _readable(x: Buffer) -> Buffer:
    """What cuDNN can read: rows that begin where engines expect it."""
    rows = in_rows(x)
    return copied(rows) if address_of(rows) % ALIGNMENT else rows


def _layout(sizes: Shape) -> Layout:
    return Layout(sizes, row_strides(sizes))

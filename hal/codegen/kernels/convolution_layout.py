"""Where the elements of images lie for a convolution: padded planes in which every column is contiguous memory.

See `convolution.c`. The tables here say where, in those planes, an element of the kernel begins to see.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.products import INDEX, LARGEST, Triple, arguments_of, launch, macros_for, offsets, own_source

if TYPE_CHECKING:
    from hal.codegen.kernels.memory import Memory
    from hal.codegen.kernels.runtime import Runtime
    from hal.plugin import DType

LOCAL = 64  # items of a group that share the rows of one plane, on devices that have groups
LINE = (
    16  # elements: planes of channels do not begin at multiples of a large power of two, which would share cache lines
)


class Planes(NamedTuple):
    """Images spread over planes: a channel's phases one after another, in each all images.

    Attributes:
        memory: [channel][phase][image][z][y][x].
        sizes: of one image in a plane: z, y, x.
        stride: elements from plane to plane.
        phases: how many planes a channel has, along z, y and x.
    """

    memory: Memory
    sizes: Triple
    stride: int
    phases: Triple


def lifted(x: Buffer) -> Buffer:
    """The same with three spatial axes: missing ones come first and have one element."""
    lead = 5 - len(x.shape)
    return x.view((*x.shape[:2], *(1,) * lead, *x.shape[2:]), (*x.strides[:2], *(0,) * lead, *x.strides[2:]))


def lifted_sizes(sizes: tuple[int, ...], missing: int) -> Triple:
    """A setting of each spatial axis for three of them."""
    return (*(missing,) * (3 - len(sizes)), *sizes)


def phases_of(kernel: Triple, stride: Triple, dilation: Triple) -> Triple:
    """How many remainders of the place by the stride the elements of the kernel have, along each axis."""
    axes = zip(kernel, stride, dilation, strict=True)
    return tuple(max(i * d % s for i in range(k)) + 1 for k, s, d in axes)


def spread(
    runtime: Runtime, label: str, x: Buffer, sizes: Triple, padding: Triple, stride: Triple, phases: Triple
) -> Planes:
    """Enqueue the spreading of x (N, C, Z, Y, X) over planes of `sizes`, with `padding` before each image."""
    images, channels = x.shape[:2]
    plane = -(-images * prod(sizes) // LINE) * LINE
    plane += LINE * (plane // LINE % 2 == 0)
    to = runtime.empty((channels * prod(phases) * plane,), x.dtype, label)
    wide = max(to.memory.nbytes, x.memory.nbytes) > LARGEST
    arguments = arguments_of(
        INDEX[wide].type, x.memory, x.offset, *x.strides, *x.shape[2:], *padding, *stride, *phases,
        to.memory, *sizes, plane,
    )  # fmt: skip
    local = 1 if runtime.is_cpu else LOCAL
    text = own_source("convolution.c", macros_for(x.dtype, wide))
    launch(runtime, text, "spread", label, (local, images, channels), (local, 1, 1), arguments, to.memory)
    return Planes(to.memory, sizes, plane, phases)


def gathered(
    runtime: Runtime, label: str, planes: Planes, rows: Memory, images: int, places: Triple, dtype: DType, wide: bool
) -> Memory:
    """Enqueue the making of columns: for each of `rows`, which says where in the planes, all images' places."""
    count = rows.nbytes // np.dtype(INDEX[wide].type).itemsize
    to = runtime.empty((count, images * prod(places)), dtype, label)
    arguments = arguments_of(INDEX[wide].type, planes.memory, rows, *planes.sizes, to.memory, *places)
    local = 1 if runtime.is_cpu else LOCAL
    text = own_source("convolution.c", macros_for(dtype, wide))
    launch(runtime, text, "columns", label, (local, images, count), (local, 1, 1), arguments, to.memory)
    return to.memory


def interleaved(runtime: Runtime, label: str, x: Buffer, sizes: Triple) -> Memory:
    """Enqueue a copy of x (N, C, Z, Y, X) with channels last, its images grown to `sizes` with zeros."""
    images, channels = x.shape[:2]
    to = runtime.empty((images, *sizes, channels), x.dtype, label)
    wide = max(to.memory.nbytes, x.memory.nbytes) > LARGEST
    arguments = arguments_of(
        INDEX[wide].type, x.memory, x.offset, *x.strides, *x.shape[2:], channels, to.memory, *sizes,
    )  # fmt: skip
    local = 1 if runtime.is_cpu else LOCAL
    text = own_source("convolution.c", macros_for(x.dtype, wide))
    launch(runtime, text, "interleave", label, (local, images, sizes[0]), (local, 1, 1), arguments, to.memory)
    return to.memory


@lru_cache(maxsize=512)
def seen(
    runtime: Runtime,
    channels: int,
    sizes: Triple,
    plane: int,
    kernel: Triple,
    stride: Triple,
    dilation: Triple,
    wide: bool,
) -> Memory:
    """Where in the planes each element of the kernel begins to see, channel by channel."""
    phases = phases_of(kernel, stride, dilation)
    places = []
    for c, k in product(range(channels), product(*map(range, kernel))):
        reach = [i * d for i, d in zip(k, dilation, strict=True)]
        phase = _row_by_row([r % s for r, s in zip(reach, stride, strict=True)], phases)
        shift = _row_by_row([r // s for r, s in zip(reach, stride, strict=True)], sizes)
        places.append((c * prod(phases) + phase) * plane + shift)
    return offsets(runtime, np.array(places), wide)


@lru_cache(maxsize=512)
def seen_back(
    runtime: Runtime, channels: int, sizes: Triple, plane: int, shifts: tuple[tuple[int, ...], ...], wide: bool
) -> Memory:
    """The same for a transposed convolution: channel by channel, at all combinations of the shifts along each axis."""
    within = [_row_by_row(shift, sizes) for shift in product(*shifts)]
    return offsets(runtime, (np.arange(channels)[:, None] * plane + np.array(within)).reshape(-1), wide)


@lru_cache(maxsize=512)
def weights_back(
    runtime: Runtime, channels: int, made: int, kernel: Triple, met: tuple[tuple[int, ...], ...], wide: bool
) -> Memory:
    """Where the weights (C_in, C_out / groups, kernel) of one output channel lie, in the order of `seen_back`."""
    within = [_row_by_row(k, kernel) for k in product(*met)]
    size = prod(kernel)
    return offsets(runtime, (np.arange(channels)[:, None] * (made * size) + np.array(within)).reshape(-1), wide)


def _row_by_row(place: Any, sizes: Triple) -> int:
    z, y, x = place
    return int((z * sizes[1] + y) * sizes[2] + x)

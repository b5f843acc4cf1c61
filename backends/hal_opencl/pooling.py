"""Pooling in one, two and three dimensions, and its gradients: each element of a result is computed by itself.

A gradient is gathered, not scattered: each input element looks at the windows that it is in, so nothing is added twice
and the order of additions is the same on every run.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from hal import ops
from hal.ops.windows import fit_windows
from hal.plugin import Array
from hal_opencl.buffer import Buffer
from hal_opencl.movement import in_rows
from hal_opencl.table import kernels
from hal_opencl.templates import run

Sizes = tuple[int, ...]
# All as if there were three spatial axes. `in`: sizes of the input, `out`: numbers of windows.
_HEAD = """
typedef struct { i64 in[3]; i64 out[3]; i64 span[3]; i64 stride[3]; i64 padding[3]; i64 dilation[3]; } window_;
"""
_SEEN = """const i64 d = z * w.stride[0] - w.padding[0] + a * w.dilation[0];
            const i64 h = y * w.stride[1] - w.padding[1] + b * w.dilation[1];
            const i64 v = x * w.stride[2] - w.padding[2] + c * w.dilation[2];
            if (d < 0 || d >= w.in[0] || h < 0 || h >= w.in[1] || v < 0 || v >= w.in[2]) continue;"""
_EACH = """for (i64 a = 0; a < w.span[0]; a++) for (i64 b = 0; b < w.span[1]; b++)
        for (i64 c = 0; c < w.span[2]; c++)"""
# The place of the first maximum of window (z, y, x) of an image; NaN is the greatest.
_FIRST = (
    """
HAL_FUNCTION i64 top_of(HAL_GLOBAL const @X *image, const window_ w, const i64 z, const i64 y, const i64 x) {
    i64 at = -1;
    @valueX top = 0;
    @EACH {
            @SEEN
            const i64 place = (d * w.in[1] + h) * w.in[2] + v;
            const @valueX value = @loadX(image, place);
            if (at < 0 || value > top || (value != value && top == top)) { at = place; top = value; }
    }
    return at;
}
""".replace("@EACH", _EACH)
).replace("@SEEN", _SEEN)
_PLACE = """i64 rest = i;
        const i64 x = rest % w.{sizes}[2]; rest /= w.{sizes}[2];
        const i64 y = rest % w.{sizes}[1]; rest /= w.{sizes}[1];
        const i64 z = rest % w.{sizes}[0]; const i64 image = rest / w.{sizes}[0];"""
_MAX = (
    _HEAD
    + _FIRST
    + """
HAL_KERNEL kernel_(const i64 n, const i64 per, const window_ w, HAL_GLOBAL const @X *restrict given, const i64 go,
    HAL_GLOBAL @X *restrict out, const i64 oo) {
    given += go; out += oo;
    @LOOP {
        @PLACE
        HAL_GLOBAL const @X *at = given + image * w.in[0] * w.in[1] * w.in[2];
        @storeX(out, i, @loadX(at, top_of(at, w, z, y, x)));
    }
}
""".replace("@PLACE", _PLACE.format(sizes="out"))
)
# The windows that an element is in: those whose start is a whole number of strides away.
_COVERING = """const i64 sz = pz + w.padding[0] - a * w.dilation[0], sy = py + w.padding[1] - b * w.dilation[1];
            const i64 sx = px + w.padding[2] - c * w.dilation[2];
            if (sz < 0 || sy < 0 || sx < 0 || sz % w.stride[0] || sy % w.stride[1] || sx % w.stride[2]) continue;
            const i64 z = sz / w.stride[0], y = sy / w.stride[1], x = sx / w.stride[2];
            if (z >= w.out[0] || y >= w.out[1] || x >= w.out[2]) continue;"""
_IN_PLACE = _PLACE.format(sizes="in").replace("i64 x", "i64 px").replace("i64 y", "i64 py").replace("i64 z", "i64 pz")
_MAX_GRADIENT = (
    _HEAD
    + _FIRST
    + """
HAL_KERNEL kernel_(const i64 n, const i64 per, const window_ w, HAL_GLOBAL const @G *restrict g, const i64 og,
    HAL_GLOBAL const @X *restrict given, const i64 go, HAL_GLOBAL @X *restrict out, const i64 oo) {
    g += og; given += go; out += oo;
    @LOOP {
        @PLACE
        HAL_GLOBAL const @X *at = given + image * w.in[0] * w.in[1] * w.in[2];
        HAL_GLOBAL const @G *of = g + image * w.out[0] * w.out[1] * w.out[2];
        const i64 self = (pz * w.in[1] + py) * w.in[2] + px;
        @valueX sum = 0;
        @EACH {
            @COVERING
            if (top_of(at, w, z, y, x) == self) sum += @loadG(of, (z * w.out[1] + y) * w.out[2] + x);
        }
        @storeX(out, i, sum);
    }
}
""".replace("@PLACE", _IN_PLACE)
    .replace("@EACH", _EACH)
    .replace("@COVERING", _COVERING)
)
# How many elements count in window (z, y, x): with `padded` also those of the padding, but none beyond it.
_COUNT = """
HAL_FUNCTION i64 counted(const window_ w, const i64 z, const i64 y, const i64 x, const i64 padded) {
    const i64 at[3] = { z, y, x };
    i64 count = 1;
    for (int axis = 0; axis < 3; axis++) {
        const i64 start = at[axis] * w.stride[axis] - w.padding[axis], stop = start + w.span[axis];
        const i64 low = padded ? -w.padding[axis] : 0, high = w.in[axis] + (padded ? w.padding[axis] : 0);
        count *= (stop < high ? stop : high) - (start > low ? start : low);
    }
    return count;
}
"""
_AVERAGE = (
    _HEAD
    + _COUNT
    + """
HAL_KERNEL kernel_(const i64 n, const i64 per, const window_ w, const i64 padded,
    HAL_GLOBAL const @X *restrict given, const i64 go, HAL_GLOBAL @X *restrict out, const i64 oo) {
    given += go; out += oo;
    @LOOP {
        @PLACE
        HAL_GLOBAL const @X *at = given + image * w.in[0] * w.in[1] * w.in[2];
        @valueX sum = 0;
        @EACH {
            @SEEN
            sum += @loadX(at, (d * w.in[1] + h) * w.in[2] + v);
        }
        @storeX(out, i, sum / (@valueX)counted(w, z, y, x, padded));
    }
}
""".replace("@PLACE", _PLACE.format(sizes="out"))
    .replace("@EACH", _EACH)
    .replace("@SEEN", _SEEN)
)
_AVERAGE_GRADIENT = (
    _HEAD
    + _COUNT
    + """
HAL_KERNEL kernel_(const i64 n, const i64 per, const window_ w, const i64 padded,
    HAL_GLOBAL const @X *restrict g, const i64 og, HAL_GLOBAL @X *restrict out, const i64 oo) {
    g += og; out += oo;
    @LOOP {
        @PLACE
        HAL_GLOBAL const @X *of = g + image * w.out[0] * w.out[1] * w.out[2];
        @valueX sum = 0;
        @EACH {
            @COVERING
            sum += @loadX(of, (z * w.out[1] + y) * w.out[2] + x) / (@valueX)counted(w, z, y, x, padded);
        }
        @storeX(out, i, sum);
    }
}
""".replace("@PLACE", _IN_PLACE)
    .replace("@EACH", _EACH)
    .replace("@COVERING", _COVERING)
)


def _window(sizes: Sizes, out: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes) -> Array:
    missing = 3 - len(sizes)
    rows = [(1,) * missing + tuple(row) for row in (sizes, out, kernel, stride)]
    rows += [(0,) * missing + tuple(padding), (1,) * missing + tuple(dilation)]
    return np.array(rows, np.int64)


def _register(n: int) -> None:
    table, ones, zeros = ops.TABLE, (1,) * n, (0,) * n

    @kernels.register(table[f"max_pool{n}d"])
    def max_pool(
        x: Buffer, *, kernel: Sizes, stride: Sizes, padding: Sizes = zeros, dilation: Sizes = ones, ceil_mode: bool
    ) -> Buffer:
        sizes = x.shape[2:]
        windows = fit_windows("max_pool", sizes, kernel, stride, padding, dilation, ceil_mode)
        out = x.memory.runtime.empty((*x.shape[:2], *windows), x.dtype, f"max_pool{n}d")
        given = [_window(sizes, windows, kernel, stride, padding, dilation), in_rows(x), out]
        label, grain = f"max_pool{n}d", max(1, 2048 // prod(kernel))
        run(x.memory.runtime, label, _MAX, out.size, given, writes=[out], types={"X": x.dtype}, grain=grain)
        return out

    @kernels.register(table[f"max_pool{n}d_gradient"])
    def max_pool_gradient(
        g: Buffer,
        x: Buffer,
        *,
        kernel: Sizes,
        stride: Sizes,
        padding: Sizes = zeros,
        dilation: Sizes = ones,
        ceil_mode: bool,
    ) -> Buffer:
        out = x.memory.runtime.empty(x.shape, x.dtype, f"max_pool{n}d_gradient")
        window = _window(x.shape[2:], g.shape[2:], kernel, stride, padding, dilation)
        types, grain = {"X": x.dtype, "G": g.dtype}, max(1, 2048 // prod(kernel))
        given = [window, in_rows(g), in_rows(x), out]
        label = f"max_pool{n}d_gradient"
        run(x.memory.runtime, label, _MAX_GRADIENT, out.size, given, writes=[out], types=types, grain=grain)
        return out

    @kernels.register(table[f"avg_pool{n}d"])
    def avg_pool(
        x: Buffer, *, kernel: Sizes, stride: Sizes, padding: Sizes, ceil_mode: bool, count_include_pad: bool
    ) -> Buffer:
        sizes = x.shape[2:]
        windows = fit_windows("avg_pool", sizes, kernel, stride, padding, ones, ceil_mode)
        out = x.memory.runtime.empty((*x.shape[:2], *windows), x.dtype, f"avg_pool{n}d")
        window = _window(sizes, windows, kernel, stride, padding, ones)
        given = [window, int(count_include_pad), in_rows(x), out]
        label, grain = f"avg_pool{n}d", max(1, 2048 // prod(kernel))
        run(x.memory.runtime, label, _AVERAGE, out.size, given, writes=[out], types={"X": x.dtype}, grain=grain)
        return out

    @kernels.register(table[f"avg_pool{n}d_gradient"])
    def avg_pool_gradient(
        g: Buffer,
        *,
        sizes: Sizes,
        kernel: Sizes,
        stride: Sizes,
        padding: Sizes,
        ceil_mode: bool,
        count_include_pad: bool,
    ) -> Buffer:
        out = g.memory.runtime.empty((*g.shape[:2], *sizes), g.dtype, f"avg_pool{n}d_gradient")
        window = _window(sizes, g.shape[2:], kernel, stride, padding, ones)
        given: list[Any] = [window, int(count_include_pad), in_rows(g), out]
        label, grain = f"avg_pool{n}d_gradient", max(1, 2048 // prod(kernel))
        run(
            g.memory.runtime, label, _AVERAGE_GRADIENT, out.size, given, writes=[out], types={"X": g.dtype}, grain=grain
        )
        return out


for _n in (1, 2, 3):
    _register(_n)

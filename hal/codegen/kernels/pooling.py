"""Pooling in one, two and three dimensions, and its gradients: each element of a result is computed by itself.

A gradient is gathered, not scattered: each input element looks at the windows that it is in, so nothing is added twice
and the order of additions is the same on every run.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from math import prod

import numpy as np

from hal import ops
from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.movement import filled, in_rows
from hal.codegen.kernels.table import kernels
from hal.codegen.kernels.templates import run
from hal.ops.windows import fit_windows
from hal.plugin import Array

Sizes = tuple[int, ...]
MOST_PLACES = 16  # of a window whose sizes are part of the source
# All as if there were three spatial axes. `in`: sizes of the input, `out`: numbers of windows. What is within an image
# is counted in 32 bits, whose division costs a CPU a third. Each i is a row of the result.
_HEAD = """
typedef struct { i32 in[3]; i32 out[3]; i32 span[3]; i32 stride[3]; i32 padding[3]; i32 dilation[3]; } window_;
"""
_SEEN = """const i32 d = z * w.stride[0] - w.padding[0] + a * w.dilation[0];
            const i32 h = y * w.stride[1] - w.padding[1] + b * w.dilation[1];
            const i32 v = x * w.stride[2] - w.padding[2] + c * w.dilation[2];
            if (d < 0 || d >= w.in[0] || h < 0 || h >= w.in[1] || v < 0 || v >= w.in[2]) continue;"""
_EACH = """for (i32 a = 0; a < w.span[0]; a++) for (i32 b = 0; b < w.span[1]; b++)
        for (i32 c = 0; c < w.span[2]; c++)"""
# The place of the first maximum of window (z, y, x) of an image; NaN is the greatest.
_FIRST = """
HAL_FUNCTION i32 top_of(HAL_GLOBAL const @X *image, const window_ w, const i32 z, const i32 y, const i32 x) {
    i32 at = -1;
    @valueX top = 0;
    @EACH {
            @SEEN
            const i32 place = (d * w.in[1] + h) * w.in[2] + v;
            const @valueX value = @loadX(image, place);
            if (at < 0 || value > top || (value != value && top == top)) { at = place; top = value; }
    }
    return at;
}
"""
_IMAGES = """const i64 image = i / (w.{of}[0] * w.{of}[1]);
        const i32 rest = (i32)(i - image * (w.{of}[0] * w.{of}[1]));
        const i32 {z} = rest / w.{of}[1], {y} = rest - {z} * w.{of}[1];
        const i64 inside = (i64)w.in[0] * w.in[1] * w.in[2], outside = (i64)w.out[0] * w.out[1] * w.out[2];
        for (i32 {x} = 0; {x} < w.{of}[2]; {x}++)"""
_OF_WINDOWS = _IMAGES.format(of="out", z="z", y="y", x="x")
_OF_ELEMENTS = _IMAGES.format(of="in", z="pz", y="py", x="px")
# The windows that an element is in: those whose start is a whole number of strides away.
_COVERING = """const i32 sz = pz + w.padding[0] - a * w.dilation[0], sy = py + w.padding[1] - b * w.dilation[1];
            const i32 sx = px + w.padding[2] - c * w.dilation[2];
            if (sz < 0 || sy < 0 || sx < 0) continue;
            const i32 z = sz / w.stride[0], y = sy / w.stride[1], x = sx / w.stride[2];
            if (z * w.stride[0] != sz || y * w.stride[1] != sy || x * w.stride[2] != sx) continue;
            if (z >= w.out[0] || y >= w.out[1] || x >= w.out[2]) continue;"""
# How many elements count in window (z, y, x): with `padded` also those of the padding, but none beyond it.
_COUNT = """
HAL_FUNCTION i32 counted(const window_ w, const i32 z, const i32 y, const i32 x, const i64 padded) {
    const i32 at[3] = { z, y, x };
    i32 count = 1;
    for (int axis = 0; axis < 3; axis++) {
        const i32 start = at[axis] * w.stride[axis] - w.padding[axis], stop = start + w.span[axis];
        const i32 low = padded ? -w.padding[axis] : 0, high = w.in[axis] + (padded ? w.padding[axis] : 0);
        count *= (stop < high ? stop : high) - (start > low ? start : low);
    }
    return count;
}
"""


def _kernel(before: str, parameters: str, offsets: str, walk: str, body: str) -> str:
    """A kernel over the rows of a result: `body` is what is done for each of their elements."""
    text = f"""{_HEAD}{before}
HAL_KERNEL kernel_(const i64 n, const i64 per, const window_ w, {parameters}) {{
    {offsets}
    @LOOP {{
        {walk} {{
        {body}
        }}
    }}
}}
"""
    return text.replace("@EACH", _EACH).replace("@SEEN", _SEEN).replace("@COVERING", _COVERING)


_ONE = "HAL_GLOBAL const @X *restrict given, const i64 go, HAL_GLOBAL @X *restrict out, const i64 oo"
_TWO = (
    "HAL_GLOBAL const @G *restrict g, const i64 og, HAL_GLOBAL const @X *restrict given, const i64 go,"
    " HAL_GLOBAL @X *restrict out, const i64 oo"
)
_MAX = _kernel(
    _FIRST, _ONE, "given += go; out += oo;", _OF_WINDOWS,
    """HAL_GLOBAL const @X *at = given + image * inside;
            @storeX(out, i * w.out[2] + x, @loadX(at, top_of(at, w, z, y, x)));""",
)  # fmt: skip
_MAX_GRADIENT = _kernel(
    _FIRST, _TWO, "g += og; given += go; out += oo;", _OF_ELEMENTS,
    """HAL_GLOBAL const @X *at = given + image * inside;
            HAL_GLOBAL const @G *of = g + image * outside;
            const i32 self = (pz * w.in[1] + py) * w.in[2] + px;
            @valueX sum = 0;
            @EACH {
                @COVERING
                if (top_of(at, w, z, y, x) == self) sum += @loadG(of, (z * w.out[1] + y) * w.out[2] + x);
            }
            @storeX(out, i * w.in[2] + px, sum);""",
)  # fmt: skip
# Where no two windows share an element, each puts its gradient where its maximum is, among zeros.
_MAX_GRADIENT_APART = _kernel(
    _FIRST, _TWO, "g += og; given += go; out += oo;", _OF_WINDOWS,
    """HAL_GLOBAL const @X *at = given + image * inside;
            HAL_GLOBAL @X *to = out + image * inside;
            const @valueX of = @loadG(g, i * w.out[2] + x);
            @storeX(to, top_of(at, w, z, y, x), of);""",
)  # fmt: skip
_AVERAGE = _kernel(
    _COUNT, "const i64 padded, " + _ONE, "given += go; out += oo;", _OF_WINDOWS,
    """HAL_GLOBAL const @X *at = given + image * inside;
            @valueX sum = 0;
            @EACH {
                @SEEN
                sum += @loadX(at, (d * w.in[1] + h) * w.in[2] + v);
            }
            @storeX(out, i * w.out[2] + x, sum / (@valueX)counted(w, z, y, x, padded));""",
)  # fmt: skip
_AVERAGE_GRADIENT = _kernel(
    _COUNT, "const i64 padded, " + _ONE, "given += go; out += oo;", _OF_ELEMENTS,
    """HAL_GLOBAL const @X *of = given + image * outside;
            @valueX sum = 0;
            @EACH {
                @COVERING
                sum += @loadX(of, (z * w.out[1] + y) * w.out[2] + x) / (@valueX)counted(w, z, y, x, padded);
            }
            @storeX(out, i * w.in[2] + px, sum);""",
)  # fmt: skip


def _window(sizes: Sizes, out: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes) -> Array:
    missing = 3 - len(sizes)
    rows = [(1,) * missing + tuple(row) for row in (sizes, out, kernel, stride)]
    rows += [(0,) * missing + tuple(padding), (1,) * missing + tuple(dilation)]
    return np.array(rows, np.int32)


def _within(window: Array, gradient: bool) -> str | None:
    """The kernel for windows that are small and all lie within their image: a line of them is computed in vectors.

    Their sizes are part of the source, so that no place is looked for. None for other windows.
    """
    sizes, out, kernel, stride, padding, dilation = window.tolist()
    last = [(o - 1) * s + (k - 1) * d for o, s, k, d in zip(out, stride, kernel, dilation, strict=True)]
    if any(padding) or prod(kernel) > MOST_PLACES or any(p >= n for p, n in zip(last, sizes, strict=True)):
        return None
    return _of_lines(tuple(kernel), tuple(stride), tuple(dilation), gradient)


@cache
def _of_lines(kernel: Sizes, stride: Sizes, dilation: Sizes, gradient: bool) -> str:
    places = [
        f"((i64){a * dilation[0]} * w.in[1] + {b * dilation[1]}) * w.in[2] + x * {stride[2]} + {c * dilation[2]}"
        for a, b, c in product(*map(range, kernel))
    ]
    line = f"image * inside + ((i64)z * {stride[0]} * w.in[1] + y * {stride[1]}) * w.in[2]"
    steps = [
        f"{{ const @valueX v = @loadX(line, {place}); const i32 more = v > top || (v != v && top == top);"
        f" top = more ? v : top; first = more ? {number} : first; }}"
        for number, place in enumerate(places)
    ]
    found = ["HAL_GLOBAL const @X *line = given + row;", f"@valueX top = @loadX(line, {places[0]});", "i32 first = 0;"]
    if gradient:
        found += [*steps, "HAL_GLOBAL @X *to = out + row;", "const @valueX of = @loadG(g, i * w.out[2] + x);"]
        found += [f"@storeX(to, {place}, first == {number} ? of : 0);" for number, place in enumerate(places)]
    else:
        found += [*steps, "@storeX(out, i * w.out[2] + x, top);"]
    walk = _OF_WINDOWS.replace("for (i32 x", f"const i64 row = {line};\n        HAL_INDEPENDENT_SHORT for (i64 x")
    offsets = "g += og; given += go; out += oo;" if gradient else "given += go; out += oo;"
    return _kernel("", _TWO if gradient else _ONE, offsets, walk, "\n            ".join(found))


def _rows(x: Buffer) -> tuple[int, int]:
    """How many rows there are, and how many a work item of a CPU should take."""
    return prod(x.shape[:-1]) if x.size else 0, max(1, 512 // max(1, x.shape[-1]))


def _register(n: int) -> None:
    table, ones, zeros = ops.TABLE, (1,) * n, (0,) * n

    @kernels.register(table[f"max_pool{n}d"])
    def max_pool(
        x: Buffer, *, kernel: Sizes, stride: Sizes, padding: Sizes = zeros, dilation: Sizes = ones, ceil_mode: bool
    ) -> Buffer:
        sizes, label = x.shape[2:], f"max_pool{n}d"
        windows = fit_windows("max_pool", sizes, kernel, stride, padding, dilation, ceil_mode)
        out = x.memory.runtime.empty((*x.shape[:2], *windows), x.dtype, label)
        window = _window(sizes, windows, kernel, stride, padding, dilation)
        count, grain = _rows(out)
        text, given, types = _within(window, gradient=False) or _MAX, [window, in_rows(x), out], {"X": x.dtype}
        run(x.memory.runtime, label, text, count, given, writes=[out], types=types, grain=grain)
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
        runtime, label = x.memory.runtime, f"max_pool{n}d_gradient"
        out = runtime.empty(x.shape, x.dtype, label)
        window = _window(x.shape[2:], g.shape[2:], kernel, stride, padding, dilation)
        given, types = [window, in_rows(g), in_rows(x), out], {"X": x.dtype, "G": g.dtype}
        if all(s > (k - 1) * d for k, s, d in zip(kernel, stride, dilation, strict=True)):
            filled(runtime, out, 0)
            count, grain = _rows(g)
            text = _within(window, gradient=True) or _MAX_GRADIENT_APART
            run(runtime, label, text, count, given, writes=[out], types=types, grain=grain)
            return out
        count, grain = _rows(out)
        run(runtime, label, _MAX_GRADIENT, count, given, writes=[out], types=types, grain=grain)
        return out

    @kernels.register(table[f"avg_pool{n}d"])
    def avg_pool(
        x: Buffer, *, kernel: Sizes, stride: Sizes, padding: Sizes, ceil_mode: bool, count_include_pad: bool
    ) -> Buffer:
        sizes, label = x.shape[2:], f"avg_pool{n}d"
        windows = fit_windows("avg_pool", sizes, kernel, stride, padding, ones, ceil_mode)
        out = x.memory.runtime.empty((*x.shape[:2], *windows), x.dtype, label)
        given = [_window(sizes, windows, kernel, stride, padding, ones), int(count_include_pad), in_rows(x), out]
        count, grain = _rows(out)
        run(x.memory.runtime, label, _AVERAGE, count, given, writes=[out], types={"X": x.dtype}, grain=grain)
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
        runtime, label = g.memory.runtime, f"avg_pool{n}d_gradient"
        out = runtime.empty((*g.shape[:2], *sizes), g.dtype, label)
        given = [_window(sizes, g.shape[2:], kernel, stride, padding, ones), int(count_include_pad), in_rows(g), out]
        count, grain = _rows(out)
        run(runtime, label, _AVERAGE_GRADIENT, count, given, writes=[out], types={"X": g.dtype}, grain=grain)
        return out


for _n in (1, 2, 3):
    _register(_n)

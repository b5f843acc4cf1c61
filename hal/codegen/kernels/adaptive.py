"""Pooling to a given output size in one, two and three dimensions, and its gradients.

Window i of n over s elements reaches from floor(i s / n) to ceil((i + 1) s / n); element p is in the windows from
floor(p n / s) to ceil((p + 1) n / s). These bounds are computed once, and lie in a table on the device: a division of
integers takes longer than all else. Windows of one length are views, whose means and maxima are reductions. A gradient
is gathered, so that the order of additions is the same on every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from hal import ops
from hal.codegen.folds import fold_of
from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.composed import Out, Run, composite, folded, shaped
from hal.codegen.kernels.movement import in_rows
from hal.codegen.kernels.rows import wide_of
from hal.codegen.kernels.runtime import Runtime
from hal.codegen.kernels.templates import run
from hal.ops.adaptive_pooling import bounds
from hal.plugin import Array, Op, Spec, dtypes

Sizes = tuple[int, ...]
# As if there were three spatial axes, of which axis a has bounds from `at[a]`: where windows start and stop, and from
# which to which window each element is in. What is within an image is counted in 32 bits.
_SIZES = "typedef struct { i32 in[3]; i32 out[3]; i32 at[3]; } sizes_;\n"
_WINDOW = """const i32 z0 = t[s.at[0] + z], z1 = t[s.at[0] + s.out[0] + z];
        const i32 y0 = t[s.at[1] + y], y1 = t[s.at[1] + s.out[1] + y];"""
_WINDOW_X = "const i32 x0 = t[s.at[2] + x], x1 = t[s.at[2] + s.out[2] + x];"
_COVERING = """const i32 z0 = t[s.at[0] + 2 * s.out[0] + z], z1 = t[s.at[0] + 2 * s.out[0] + s.in[0] + z];
        const i32 y0 = t[s.at[1] + 2 * s.out[1] + y], y1 = t[s.at[1] + 2 * s.out[1] + s.in[1] + y];"""
_COVERING_X = "const i32 x0 = t[s.at[2] + 2 * s.out[2] + x], x1 = t[s.at[2] + 2 * s.out[2] + s.in[2] + x];"
_EACH = "for (i32 d = z0; d < z1; d++) for (i32 h = y0; h < y1; h++) for (i32 v = x0; v < x1; v++)"
_LENGTH = """
HAL_FUNCTION i32 length_of(HAL_GLOBAL const i32 *t, const i32 at, const i32 out, const i32 i) {
    return t[at + out + i] - t[at + i];
}
"""


def _kernel(of_windows: bool, pointers: dict[str, str], element: str, functions: str = "") -> str:
    """A kernel over the rows of all windows or of all elements: `element` is what is done for each of a row."""
    own = "out" if of_windows else "in"
    listed = "".join(f", HAL_GLOBAL {kind} *restrict {name}, const i64 o_{name}" for name, kind in pointers.items())
    moves = " ".join(f"{name} += o_{name};" for name in pointers)
    return f"""{_SIZES}{functions}
HAL_KERNEL kernel_(const i64 n, const i64 per, const sizes_ s,
    HAL_GLOBAL const i32 *restrict t, const i64 ot{listed}) {{
    {moves} t += ot;
    const i64 inside = (i64)s.in[0] * s.in[1] * s.in[2], outside = (i64)s.out[0] * s.out[1] * s.out[2];
    @LOOP {{
        const i64 image = i / (s.{own}[0] * s.{own}[1]);
        const i32 row = (i32)(i - image * (s.{own}[0] * s.{own}[1]));
        const i32 z = row / s.{own}[1], y = row - z * s.{own}[1];
        {_WINDOW if of_windows else _COVERING}
        for (i32 x = 0; x < s.{own}[2]; x++) {{
            {_WINDOW_X if of_windows else _COVERING_X}
            {element}
        }}
    }}
}}
""".replace("@EACH", _EACH)


_AVERAGE = _kernel(True, {"given": "const @X", "out": "@X"}, """@valueX sum = 0;
            @EACH sum += @loadX(given, image * inside + (d * s.in[1] + h) * s.in[2] + v);
            @storeX(out, i * s.out[2] + x, sum / (@valueX)((z1 - z0) * (y1 - y0) * (x1 - x0)));""")  # fmt: skip
# The first maximum of a window; NaN is the greatest.
_TOP = """i32 at = -1;
            @valueX top = 0;
            @EACH {
                const i32 place = (d * s.in[1] + h) * s.in[2] + v;
                const @valueX value = @loadX(given, image * inside + place);
                if (at < 0 || value > top || (value != value && top == top)) { at = place; top = value; }
            }
            """
_MAX = _kernel(True, {"given": "const @X", "out": "@X"}, _TOP + "@storeX(out, i * s.out[2] + x, top);")
_PLACE = _kernel(True, {"given": "const @X", "places": "i32"}, _TOP + "places[i * s.out[2] + x] = at;")
_AVERAGE_GRADIENT = _kernel(False, {"g": "const @X", "out": "@X"}, """@valueX sum = 0;
            for (i32 d = z0; d < z1; d++) for (i32 h = y0; h < y1; h++) {
                const i32 length = length_of(t, s.at[0], s.out[0], d) * length_of(t, s.at[1], s.out[1], h);
                for (i32 v = x0; v < x1; v++)
                    sum += @loadX(g, image * outside + (d * s.out[1] + h) * s.out[2] + v)
                        / (@valueX)(length * length_of(t, s.at[2], s.out[2], v));
            }
            @storeX(out, i * s.in[2] + x, sum);""", _LENGTH)  # fmt: skip
_MAX_GRADIENT = _kernel(False, {"g": "const @G", "places": "const i32", "out": "@G"}, """@valueG sum = 0;
            @EACH {
                const i64 window = image * outside + (d * s.out[1] + h) * s.out[2] + v;
                if (places[window] == row * s.in[2] + x) sum += @loadG(g, window);
            }
            @storeG(out, i * s.in[2] + x, sum);""")  # fmt: skip


class _Windows:
    """The bounds of windows on a device, and the launch of kernels that read them."""

    def __init__(self, runtime: Runtime, inside: Sizes, outside: Sizes) -> None:
        missing = (1,) * (3 - len(inside))
        inside, outside = missing + inside, missing + outside
        table: list[int] = []
        at = []
        for size, count in zip(inside, outside, strict=True):
            at.append(len(table))
            for pairs in (bounds(size, count), bounds(count, size)):
                table += [*(start for start, _ in pairs), *(stop for _, stop in pairs)]
        self.sizes: Array = np.array([inside, outside, at], np.int32)
        self.table = runtime.upload(np.array(table, np.int32), Spec((len(table),), dtypes.int32))

    def run(self, label: str, text: str, xs: Sequence[Buffer], out: Buffer, **types: Buffer) -> Buffer:
        given = [self.sizes, self.table, *map(in_rows, xs), out]
        rows = prod(out.shape[:-1])
        kinds = {name: x.dtype for name, x in types.items()}
        grain = max(1, 512 // out.shape[-1])
        run(out.memory.runtime, label, text, rows, given, writes=[out], types=kinds, grain=grain)
        return out


def _even(inside: Sizes, outside: Sizes) -> bool:
    """Whether all windows have one length and none overlap."""
    return all(size % o == 0 for size, o in zip(inside, outside, strict=True))


def _apart(x: Spec | Buffer, outside: Sizes) -> Sizes:
    """The shape in which each spatial axis is one of windows and one of what is in them."""
    pairs = zip(x.shape[2:], outside, strict=True)
    return (*x.shape[:2], *(n for size, o in pairs for n in (o, size // o)))


def _seen_apart(x: Buffer, outside: Sizes) -> Buffer:
    steps = zip(x.shape[2:], outside, x.strides[2:], strict=True)
    strides = (*x.strides[:2], *(n for size, o, step in steps for n in (size // o * step, step)))
    return x.view(_apart(x, outside), strides)


def _pool(op: Op, text: str, reduction: Op) -> None:
    @composite(op)
    def make(runtime: Runtime, x: Spec, *, output: Sizes) -> Run:
        shape = (*x.shape[:2], *output)
        if not _even(x.shape[2:], output):
            windows = _Windows(runtime, x.shape[2:], output)

            def uneven(x: Buffer, out: Out) -> tuple[Buffer, ...]:
                return (windows.run(op.name, text, [x], runtime.empty(shape, x.dtype, op.name), X=x),)

            return uneven
        wide = wide_of(x.dtype) if x.dtype.is_floating else x.dtype
        fold = fold_of(reduction, wide, wide)
        assert fold is not None
        parts = _apart(x, output)
        run = folded(
            runtime, op.name, [x.with_shape(parts)], tuple(range(3, len(parts), 2)), fold,
            lambda x: ops.cast(x, dtype=wide), lambda y: ops.cast(y, dtype=x.dtype),
        )  # fmt: skip
        return lambda x, out: tuple(shaped(y, shape) for y in run(_seen_apart(x, output), out=out))


def _average_gradient(op: Op) -> None:
    def uneven(g: Spec, *, sizes: Sizes) -> bool:
        """Else it is a product, broadcast: often a view that takes no memory."""
        return g.size > 0 and not _even(sizes, g.shape[2:])

    @composite(op, when=uneven)
    def make(runtime: Runtime, g: Spec, *, sizes: Sizes) -> Run:
        windows, shape = _Windows(runtime, sizes, g.shape[2:]), (*g.shape[:2], *sizes)

        def gradient(g: Buffer, out: Out) -> tuple[Buffer, ...]:
            return (windows.run(op.name, _AVERAGE_GRADIENT, [g], runtime.empty(shape, g.dtype, op.name), X=g),)

        return gradient


def _max_gradient(op: Op) -> None:
    @composite(op)
    def make(runtime: Runtime, g: Spec, x: Spec) -> Run:
        windows = _Windows(runtime, x.shape[2:], g.shape[2:])

        def gradient(g: Buffer, x: Buffer, out: Out) -> tuple[Buffer, ...]:
            places = windows.run(op.name, _PLACE, [x], runtime.empty(g.shape, dtypes.int32, op.name), X=x)
            made = runtime.empty(x.shape, g.dtype, op.name)
            return (windows.run(op.name, _MAX_GRADIENT, [g, places], made, G=g),)

        return gradient


for _n in (1, 2, 3):
    _pool(ops.TABLE[f"adaptive_avg_pool{_n}d"], _AVERAGE, ops.mean)
    _pool(ops.TABLE[f"adaptive_max_pool{_n}d"], _MAX, ops.max)
    _average_gradient(ops.TABLE[f"adaptive_avg_pool{_n}d_gradient"])
    _max_gradient(ops.TABLE[f"adaptive_max_pool{_n}d_gradient"])

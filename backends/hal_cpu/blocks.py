"""Elementwise work on large arrays: in blocks that stay in the cache, on as many threads as are worth waking.

A formula of many steps would read and write main memory at each step over a whole array; in blocks, only at its
first and last.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from hal.plugin import Array
from hal_cpu.parallel import in_parts, scratch

BLOCK = 32768  # elements: large enough to hide the cost of a NumPy call, and six such arrays fit a second-level cache
SMALL = 512  # elements up to which cutting into blocks costs more than it saves
Formula = Callable[..., None]


def is_half(dtype: np.dtype[Any]) -> bool:
    """Whether this is float16 or bfloat16."""
    return dtype.itemsize == 2 and dtype.kind not in "iu"


def flat(*arrays: Array) -> tuple[Array, ...] | None:
    """One-dimensional views of arrays of one shape, in the one order in which all lie in memory; None without one.

    That order need not be row-major: what a kernel gives may have its channels side by side, say.
    """
    first = arrays[0]
    if all(x.flags.c_contiguous for x in arrays):
        return tuple([x.reshape(-1) for x in arrays])
    order = sorted(range(first.ndim), key=lambda axis: -first.strides[axis])
    turned = [x.transpose(order) for x in arrays]
    return tuple([x.reshape(-1) for x in turned]) if all(x.flags.c_contiguous for x in turned) else None


def in_blocks(temporaries: int, work: int, results: int = 1) -> Callable[[Formula], Callable[..., Any]]:
    """Make a kernel of `formula(x, *results, *temporaries, **settings)`, which is given pieces of the arrays.

    A result may be the same memory as `x`, so the formula must not read `x` after it wrote to one.
    Half precision is computed in float32 and rounded once.

    Args:
        temporaries: how many arrays like a piece of `x` the formula needs for its own use.
        work: how long it takes for an element, in units of a quarter of a nanosecond: what a second thread is worth.
        results: how many there are; of more than one, the kernel gives and takes a tuple.
    """

    def decorate(formula: Formula) -> Callable[..., Any]:
        def kernel(x: Array, out: Array | None = None, **settings: Any) -> Array:
            if out is None:
                out = np.empty_like(x)
            run(x, (out,), settings)
            return out

        def kernel_of_several(x: Array, out: tuple[Array, ...] | None = None, **settings: Any) -> tuple[Array, ...]:
            if out is None:
                out = tuple([np.empty_like(x) for _ in range(results)])
            run(x, out, settings)
            return out

        def run(x: Array, outs: tuple[Array, ...], settings: dict[str, Any]) -> None:
            half = is_half(x.dtype)
            if x.size <= SMALL and not half:
                formula(x, *outs, *[np.empty_like(outs[0]) for _ in range(temporaries)], **settings)
                return
            lines = flat(x, *outs)
            if lines is None:
                made = [np.empty(x.shape, x.dtype) for _ in outs]
                run(np.ascontiguousarray(x), tuple(made), settings)
                for target, value in zip(outs, made, strict=True):
                    np.copyto(target, value)
                return
            if x.size <= BLOCK and not half:
                formula(*lines, *[np.empty_like(lines[1]) for _ in range(temporaries)], **settings)
                return
            dtype = np.dtype(np.float32) if half else x.dtype

            def part(start: int, stop: int) -> None:
                spare = scratch("blocks", (temporaries + half * len(lines), BLOCK), dtype)
                for at in range(start, stop, BLOCK):
                    until = min(at + BLOCK, stop)
                    pieces = [line[at:until] for line in lines]
                    rows = [row[: until - at] for row in spare]
                    if not half:
                        formula(*pieces, *rows, **settings)
                        continue
                    np.copyto(rows[0], pieces[0])
                    formula(*rows, **settings)
                    for piece, row in zip(pieces[1:], rows[1:], strict=False):
                        np.copyto(piece, row, casting="unsafe")

            in_parts(part, x.size, work * x.size)

        return kernel if results == 1 else kernel_of_several

    return decorate


@lru_cache(maxsize=64)
def _repeated(value: float, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    return np.array(value, dtype), np.full(BLOCK, value, dtype)


def constant(value: float, like: Array) -> Array:
    """`value` in the shape of `like`, a piece of an array, or as a 0-d array if that is small.

    NumPy's maximum and minimum take half as long for two arrays as for an array and a number (measured, NumPy 2.4).
    """
    single, block = _repeated(value, like.dtype)
    return single if like.size <= SMALL else block[: like.size]


def select(mask: Array, a: Array, b: Array, out: Array, spare: Array, bits: Array) -> None:
    """`a` where `mask`, else `b`, for pieces of equal shape, by bits and not by branches.

    Where a mask is as good as random, NumPy's where mispredicts every other element: five times slower (measured).
    `spare` and `bits` are memory of unsigned integers as wide as the elements.
    """
    a, b, out = a.view(bits.dtype), b.view(bits.dtype), out.view(bits.dtype)
    np.copyto(bits, mask)
    np.negative(bits, out=bits)  # all ones where true
    np.bitwise_xor(a, b, out=spare)
    np.bitwise_and(spare, bits, out=spare)
    np.bitwise_xor(spare, b, out=out)


_SIGNS = {np.dtype(f"u{n}"): np.array(1 << (8 * n - 1), f"u{n}") for n in (4, 8)}


def copy_sign(x: Array, size: Array, spare: Array) -> None:
    """Give `size`, pieces of numbers that are not negative, the signs of `x`, by bits.

    NumPy's copysign takes more than twice as long (measured, NumPy 2.4).
    """
    bits = np.dtype(f"u{x.itemsize}")
    signs, size = spare.view(bits), size.view(bits)
    np.bitwise_and(x.view(bits), _SIGNS[bits], out=signs)
    np.bitwise_or(size, signs, out=size)

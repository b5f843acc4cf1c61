"""float32 rounded to bfloat16, and float32 as a sum of bfloat16 numbers.

Numbers that were rounded are kept as float32 whose lower half is zero, since that is what products are summed in.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hal.plugin import Array, dtypes

BFLOAT16: np.dtype[Any] = dtypes.bfloat16.numpy
BLOCK = 1 << 15  # elements that are converted at once, so that what lies between two conversions stays in the cache
SMALLEST = float(np.finfo(np.float32).tiny)  # the smallest normal number, of bfloat16 as of float32


def rounded(x: Array, ftz: bool = False) -> Array:
    """`x`, of any shape, rounded to the nearest bfloat16, ties to even, as a new float32 array in the same order.

    A NaN becomes the quiet NaN of its sign. With `ftz`, numbers too small to be normal become zeros of their sign.

    Source: IEEE 754-2019, section 4.3.1, as `ml_dtypes` does it.
    """
    given = x if x.dtype == np.float32 else x.astype(np.float32)
    turned = given.ndim > 1 and not given.flags.c_contiguous and given.T.flags.c_contiguous
    flat = (given.T if turned else given).reshape(-1)
    out = np.empty(flat.size, np.float32)
    between = np.empty(min(BLOCK, flat.size), BFLOAT16)
    for start in range(0, flat.size, BLOCK):
        part = flat[start : start + BLOCK]
        between[: part.size] = part
        out[start : start + BLOCK] = between[: part.size]
    if ftz:
        flush(out)
    return out.reshape(given.T.shape).T if turned else out.reshape(given.shape)


def flush(x: Array) -> Array:
    """Set the numbers of a float32 array that are too small to be normal to zeros of their sign, in place."""
    small = np.abs(x) < SMALLEST
    if small.any():
        np.copyto(x, np.copysign(np.float32(0), x), where=small)
    return x


def split(x: Array, parts: int, ftz: bool = False) -> list[Array]:
    """`parts` bfloat16 numbers for each float32, the largest first, whose sum is the float32 (exactly, for three).

    Each is what is left of `x`, rounded. Infinities, NaNs and what rounds to infinity have no second part.
    """
    found = [rounded(x, ftz)]
    left = x
    while len(found) < parts:
        with np.errstate(invalid="ignore"):
            left = np.where(np.isfinite(found[-1]), left - found[-1], np.float32(0))
        found.append(rounded(left, ftz))
    return found

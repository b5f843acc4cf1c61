"""Products in tiles so small that BLAS multiplies them as they lie.

OpenBLAS copies the operands of a product into an order of its own, block by block, which takes a tenth of the time of
a large product, and most of that of one with few rows. On CPUs with AVX-512 it leaves that out for small ones: so a
product is as quick in tiles as its sums can be, 1.1 times as fast for 128 rows and more, and 4 times for 8 (measured,
OpenBLAS 0.3.31). Each element is a sum over the same terms in the same order, whatever the tile.
"""

from __future__ import annotations

import numpy as np

from hal.plugin import Array, has_small_products

MOST = 1_000_000  # multiply-adds of a product that OpenBLAS takes for small; by a transposed matrix, 1200 results
FEW = 128  # rows up to which tiles always pay; with more, those of equal size that leave nothing over
CACHED = 1 << 19  # bytes of the second matrix, which all rows of tiles go through
TERMS = range(96, 977)  # with fewer, calls take longer than what they save; with more, tiles are too small


def tile(m: int, terms: int, transposed: bool) -> tuple[int, int]:
    """Rows and columns of a tile, of those that were quickest; `transposed`: whether one of the matrices is."""
    if transposed:
        height = min(m, 32)
        return height, 1024 // height // 32 * 32
    height = min(m, 64, MOST // (64 * terms) // 16 * 16)
    return height, MOST // (height * terms) // 64 * 64 if height == m else 64


def multiply(a: Array, b: Array, out: Array) -> None:
    """Write a @ b, for matrices of one dtype, into `out`, which is neither of them."""
    (m, terms), n = a.shape, b.shape[1]
    if terms not in TERMS or m < 4 or a.dtype.kind != "f" or not has_small_products():
        np.matmul(a, b, out=out)
        return
    by_transposed = b.strides[0] == b.itemsize
    height, width = tile(m, terms, by_transposed or a.strides[0] == a.itemsize)
    uneven = m % height or n % width
    if n < width or (m > FEW and (uneven or b.nbytes > CACHED or (by_transposed and terms < 256))):
        np.matmul(a, b, out=out)
        return
    rows, columns = m // height, n // width
    down, across = rows * height, columns * width
    np.matmul(
        a[:down].reshape(rows, 1, height, terms),
        b[:, :across].reshape(terms, columns, width).swapaxes(0, 1),
        out=out[:down, :across].reshape(rows, height, columns, width).swapaxes(1, 2),
    )
    if across < n:
        np.matmul(a, b[:, across:], out=out[:, across:])
    if down < m:
        np.matmul(a[down:], b[:, :across], out=out[down:, :across])

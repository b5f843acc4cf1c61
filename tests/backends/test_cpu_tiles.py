"""Products in tiles: the same sums as in one piece, for sizes with and without something left over."""

from __future__ import annotations

import numpy as np
import pytest

from hal_cpu import tiles


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("m", "terms", "n"),
    [(4, 96, 300), (8, 512, 512), (33, 100, 70), (64, 784, 256), (100, 300, 130), (128, 976, 64), (256, 128, 192)],
)
def test_tiles_give_the_product(monkeypatch: pytest.MonkeyPatch, m: int, terms: int, n: int, dtype: str) -> None:
    monkeypatch.setattr(tiles, "has_small_products", lambda: True)  # on other CPUs it is right, but not quicker
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(m, terms)).astype(dtype), rng.normal(size=(terms, n)).astype(dtype)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    allowed = 8 * np.finfo(dtype).eps * np.abs(a).astype(np.float64) @ np.abs(b)
    for x in (a, np.asfortranarray(a)):
        for y in (b, np.asfortranarray(b)):
            out = np.full((m, n), np.nan, dtype)
            tiles.multiply(x, y, out)
            assert (np.abs(out - exact) <= allowed).all()

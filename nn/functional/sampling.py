"""Images looked up at places that a network chooses: grid_sample, and grids of affine maps, as functions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import numpy as np

import hal
from hal import ops
from hal.errors import SettingError, ShapeError
from hal.tensor import Tensor

MODES, PADDINGS = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")


def grid_sample(
    input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool | None = None
) -> Tensor:
    """Images (N, C, H, W) or volumes at the places (N, ..., 2 or 3) of a grid, from -1 to 1: x first, then y, then z.

    Args:
        mode: `bilinear` (of eight neighbours in volumes), `nearest`, or `bicubic` for images.
        padding_mode: what is outside: `zeros`, the nearest element (`border`), or the mirror image (`reflection`).
        align_corners: whether -1 and 1 are the centres of the outermost elements, and not their edges.

    Raises:
        SettingError: a mode that there is not.
        ShapeError: the grid does not belong to the input.

    Source: torch.nn.functional.grid_sample; Jaderberg et al., "Spatial transformer networks", 2015.
    """
    n = input.ndim - 2
    if mode not in MODES or (mode == "bicubic" and n != 2):
        raise SettingError(f"grid_sample of {n} spatial axes needs mode= one of {', '.join(MODES)}, got {mode!r}")
    if padding_mode not in PADDINGS:
        raise SettingError(f"grid_sample needs padding_mode= one of {', '.join(PADDINGS)}, got {padding_mode!r}")
    if n not in (2, 3) or grid.ndim != n + 2 or grid.shape[-1] != n or grid.shape[0] != input.shape[0]:
        raise ShapeError(
            f"grid_sample needs an input (N, C, H, W) with a grid (N, H', W', 2), or (N, C, D, H, W) with "
            f"(N, D', H', W', 3), got {input.shape} and {grid.shape}"
        )
    sizes, corners = input.shape[2:], bool(align_corners)
    count = prod(grid.shape[1:-1])
    places = [_unnormalised(grid[..., n - 1 - i], size, corners) for i, size in enumerate(sizes)]
    places = [ops.reshape(p, shape=(grid.shape[0], count)) for p in places]
    image = ops.reshape(input, shape=(*input.shape[:2], prod(sizes)))
    if mode == "bicubic":
        taps = [_cubic_taps(p) for p in places]
    else:
        places = [_inside(p, size, padding_mode, corners) for p, size in zip(places, sizes, strict=True)]
        taps = [_nearest_taps(p) if mode == "nearest" else _linear_taps(p) for p in places]
    total = None
    for corner in product(*taps):
        where = [place for place, _ in corner]
        if mode == "bicubic":
            where = [_inside(p, size, padding_mode, corners) for p, size in zip(where, sizes, strict=True)]
        seen = _looked_up(image, where, sizes)
        for _, weight in corner:
            seen = seen if weight is None else seen * weight.unsqueeze(1)
        total = seen if total is None else total + seen
    assert total is not None
    return ops.reshape(total, shape=(*input.shape[:2], *grid.shape[1:-1]))


Tap = tuple[Tensor, Tensor | None]  # a place along one axis, and its weight


def _unnormalised(x: Tensor, size: int, corners: bool) -> Tensor:
    """From -1 ... 1 to 0 ... size - 1."""
    return (x + 1) * ((size - 1) / 2) if corners else ((x + 1) * size - 1) / 2


def _inside(x: Tensor, size: int, padding: str, corners: bool) -> Tensor:
    """Places outside as the padding has them; with zeros they stay outside."""
    if padding == "zeros":
        return x
    if padding == "reflection":
        low, high = (0.0, size - 1.0) if corners else (-0.5, size - 0.5)
        span = high - low
        if span == 0:
            return x * 0
        away = ops.abs(x - low)
        turns = ops.floor(away / span)
        rest = away - turns * span
        x = ops.where(ops.equal(ops.remainder(turns, 2.0), 0.0), rest + low, high - rest)
    return ops.clip(x, low=0.0, high=float(size - 1))


def _nearest_taps(x: Tensor) -> list[Tap]:
    return [(ops.round(x.detach()), None)]


def _linear_taps(x: Tensor) -> list[Tap]:
    low = ops.floor(x.detach())
    share = x - low
    return [(low, 1 - share), (low + 1, share)]


def _cubic_taps(x: Tensor) -> list[Tap]:
    """Four places and the weights of Keys' kernel with sharpness -0.75."""
    low, a = ops.floor(x.detach()), -0.75
    t = x - low

    def inner(d: Tensor) -> Tensor:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def outer(d: Tensor) -> Tensor:
        return (((d - 5) * d + 8) * d - 4) * a

    return [(low - 1, outer(t + 1)), (low, inner(t)), (low + 1, inner(1 - t)), (low + 2, outer(2 - t))]


def _looked_up(image: Tensor, where: list[Tensor], sizes: tuple[int, ...]) -> Tensor:
    """The elements of (N, C, places) at these places (N, count) along each axis, zeros for those outside."""
    flat, seen = None, None
    for place, size in zip(where, sizes, strict=True):
        known = ops.logical_and(ops.greater_equal(place, 0.0), ops.less_equal(place, float(size - 1)))
        seen = known if seen is None else ops.logical_and(seen, known)
        index = ops.cast(ops.where(known, place.detach(), 0.0), dtype=hal.int64)
        flat = index if flat is None else flat * size + index
    assert flat is not None
    assert seen is not None
    shape = (*image.shape[:2], flat.shape[1])
    found = ops.gather(image, ops.broadcast_to(flat.unsqueeze(1), shape=shape), axis=2)
    return ops.where(seen.unsqueeze(1), found, 0.0)


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The grid (N, ..., 2 or 3) for `grid_sample` that an affine map (N, 2, 3) or (N, 3, 4) makes of the places.

    Args:
        size: of the images that will be made: (N, C, H, W) or (N, C, D, H, W).

    Raises:
        ShapeError: the maps do not belong to the size.

    Source: torch.nn.functional.affine_grid.
    """
    n = len(size) - 2
    if n not in (2, 3) or theta.shape != (size[0], n, n + 1):
        raise ShapeError(f"affine_grid to size {tuple(size)} needs maps {(size[0], n, n + 1)}, got {theta.shape}")
    axes = []
    for length in size[2:]:
        ends = 1.0 if align_corners else (length - 1) / length
        axes.append(np.linspace(-ends, ends, length) if length > 1 else np.zeros(1))
    places = np.stack([*reversed(np.meshgrid(*axes, indexing="ij")), np.ones(tuple(size[2:]))], axis=-1)
    base = hal.tensor(places.reshape(-1, n + 1).astype(theta.dtype.numpy), device=theta.device)
    return ops.reshape(base @ theta.mT, shape=(size[0], *size[2:], n))

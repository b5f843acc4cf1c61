"""Where in a sequence a vector stands, as functions: waves that are added to it, or angles by which it is turned."""

from __future__ import annotations

import numpy as np

import hal
from hal import ops
from hal.creation import DeviceLike
from hal.errors import ShapeError
from hal.op import Array
from hal.tensor import Tensor

BASE = 10000.0  # the longest wave is 2 pi times as long


def _angles(who: str, start: int, length: int, dim: int, base: float) -> Array:
    """position / base ** (2 i / dim) for positions from `start` and i up to dim / 2, as float64."""
    if dim < 2 or dim % 2:
        raise ShapeError(f"{who} needs an even number of features, got {dim}")
    return np.arange(start, start + length)[:, None] / base ** (np.arange(0, dim, 2) / dim)


def sinusoidal_positions(
    length: int, dim: int, base: float = BASE, *, device: DeviceLike = None, dtype: hal.DType = hal.float32
) -> Tensor:
    """A table (length, dim): sines in the even columns and cosines in the odd ones, of ever longer waves.

    Raises:
        ShapeError: `dim` is odd.

    Source: Vaswani et al., "Attention is all you need", 2017, section 3.5.
    """
    angles = _angles("sinusoidal_positions", 0, length, dim, base)
    table = np.stack([np.sin(angles), np.cos(angles)], axis=2).reshape(length, dim)
    return hal.tensor(table.astype(dtype.numpy), device=device)


def rotary_positions(input: Tensor, offset: int = 0, base: float = BASE, interleaved: bool = False) -> Tensor:
    """Queries or keys (..., time, dim), each pair of features turned by an angle that grows with the time.

    The product of a query and a key then depends on how far apart they are, and not on where.

    Args:
        offset: the position of the first step: how many came before, when a sequence is continued.
        interleaved: whether features 2 i and 2 i + 1 are a pair, as in the paper; else i and i + dim / 2, as in
            GPT-NeoX and Llama.

    Raises:
        ShapeError: `dim` is odd, or there is no time.

    Source: Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021.
    """
    if input.ndim < 2:
        raise ShapeError(f"rotary_positions needs an input (..., time, dim), got shape {input.shape}")
    time, dim = input.shape[-2:]
    angles = _angles("rotary_positions", offset, time, dim, base)
    cosine, sine = (hal.tensor(f(angles).astype(input.dtype.numpy), device=input.device) for f in (np.cos, np.sin))
    if interleaved:
        pairs = ops.reshape(input, shape=(*input.shape[:-1], dim // 2, 2))
        a, b = pairs[..., 0], pairs[..., 1]
        return ops.reshape(ops.stack(a * cosine - b * sine, b * cosine + a * sine, axis=-1), shape=input.shape)
    a, b = input[..., : dim // 2], input[..., dim // 2 :]
    return ops.concat(a * cosine - b * sine, b * cosine + a * sine, axis=-1)

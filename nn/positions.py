"""Layers that tell a network where in a sequence a vector stands."""

from __future__ import annotations

from typing import Any

import hal
from hal.creation import DeviceLike
from hal.errors import ShapeError
from hal.tensor import Tensor
from nn import functional as F
from nn.functional.positions import BASE
from nn.module import Module


class SinusoidalPositions(Module):
    """Waves of ever greater lengths added to a sequence (..., time, dim), then dropout. Nothing is trained.

    The table is not part of the state dictionary.

    >>> SinusoidalPositions(4)(hal.zeros(2, 3, 4))[0, 0].tolist()
    [0.0, 1.0, 0.0, 1.0]

    Args:
        max_length: the longest sequence.
        dropout: probability with which an element of the sum is dropped.
        base: the longest wave is 2 pi times as long.

    Raises:
        ShapeError: `dim` is odd; or a sequence is too long, or of other features.

    Source: Vaswani et al., "Attention is all you need", 2017, section 3.5.
    """

    table: Tensor

    def __init__(
        self, dim: int, max_length: int = 5000, dropout: float = 0.0, base: float = BASE, device: DeviceLike = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.dim = dim
        self.max_length = max_length
        self.dropout = dropout
        what = hal.float32 if dtype is None else hal.zeros((), dtype=dtype).dtype
        table = F.sinusoidal_positions(max_length, dim, base, device=device, dtype=what)
        self.register_buffer("table", table, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim < 2 or input.shape[-1] != self.dim or input.shape[-2] > self.max_length:
            raise ShapeError(
                f"SinusoidalPositions needs an input (..., time, {self.dim}) of at most {self.max_length} steps, "
                f"got shape {input.shape}"
            )
        return F.dropout(input + self.table[: input.shape[-2]].to(input.dtype), self.dropout, self.training)

    def extra_repr(self) -> str:
        return f"{self.dim}, max_length={self.max_length}, dropout={self.dropout}"


class RotaryPositions(Module):
    """Queries or keys (..., time, dim) turned by angles that grow with the time. Nothing is trained.

    Args:
        dim: features of a head.
        interleaved: whether features 2 i and 2 i + 1 are a pair; else i and i + dim / 2.

    Raises:
        ShapeError: `dim` is odd, or the input has other features.

    Source: Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021.
    """

    def __init__(self, dim: int, base: float = BASE, interleaved: bool = False) -> None:
        super().__init__()
        if dim < 2 or dim % 2:
            raise ShapeError(f"RotaryPositions needs an even number of features, got {dim}")
        self.dim = dim
        self.base = base
        self.interleaved = interleaved

    def forward(self, input: Tensor, offset: int = 0) -> Tensor:
        if input.shape[-1] != self.dim:
            raise ShapeError(f"RotaryPositions needs an input (..., time, {self.dim}), got shape {input.shape}")
        return F.rotary_positions(input, offset, self.base, self.interleaved)

    def extra_repr(self) -> str:
        return f"{self.dim}, base={self.base}, interleaved={self.interleaved}"

"""Layers that make images larger or smaller by interpolation."""

from __future__ import annotations

from collections.abc import Sequence

from hal.tensor import Tensor
from nn import functional as F
from nn.functional.resampling import Scale, Shape
from nn.module import Module


class Upsample(Module):
    """(N, C, ...) with other spatial sizes: `size`, or `scale_factor` times as large.

    Args:
        mode: `nearest`, `nearest-exact`, `area`, `linear`, `bilinear`, `bicubic` or `trilinear`.
        align_corners: whether the corners' centres, and not their edges, stay where they are.

    Source: torch.nn.Upsample.
    """

    def __init__(
        self, size: Shape = None, scale_factor: Scale = None, mode: str = "nearest", align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.size = size
        self.scale_factor: Scale = None
        if scale_factor is not None:
            if isinstance(scale_factor, Sequence):
                self.scale_factor = tuple(map(float, scale_factor))
            else:
                self.scale_factor = float(scale_factor)
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.interpolate(
            input, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor
        )

    def extra_repr(self) -> str:
        what = f"size={self.size!r}" if self.scale_factor is None else f"scale_factor={self.scale_factor!r}"
        return f"{what}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """Upsample with mode `nearest`. Source: torch.nn.UpsamplingNearest2d."""

    def __init__(self, size: Shape = None, scale_factor: Scale = None) -> None:
        super().__init__(size, scale_factor, mode="nearest")


class UpsamplingBilinear2d(Upsample):
    """Upsample with mode `bilinear` and aligned corners. Source: torch.nn.UpsamplingBilinear2d."""

    def __init__(self, size: Shape = None, scale_factor: Scale = None) -> None:
        super().__init__(size, scale_factor, mode="bilinear", align_corners=True)

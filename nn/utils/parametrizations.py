"""Weights kept in check: their length apart from their direction, or their largest singular value 1."""

from __future__ import annotations

import hal
from hal import ops
from hal.errors import SettingError
from hal.tensor import Tensor
from nn import functional as F
from nn.convolution import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from nn.module import Module
from nn.utils.orthogonal import orthogonal
from nn.utils.parametrize import register_parametrization

__all__ = ["orthogonal", "spectral_norm", "weight_norm"]
TRANSPOSED = (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)


class _WeightNorm(Module):
    def __init__(self, dim: int | None) -> None:
        super().__init__()
        self.dim = -1 if dim is None else dim

    def _length(self, v: Tensor) -> Tensor:
        if self.dim == -1:
            return ops.sqrt(ops.sum(v * v))
        others = tuple(i for i in range(v.ndim) if i != self.dim % v.ndim)
        return ops.sqrt(ops.sum(v * v, axis=others, keepdims=True))

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return weight_v * (weight_g / self._length(weight_v))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return self._length(weight), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Train the length (`original0`) and the direction (`original1`) of a weight apart.

    Args:
        dim: the axis whose entries have lengths of their own; None for one length of all.

    Source: torch.nn.utils.parametrizations.weight_norm; Salimans, Kingma, 2016.
    """
    return register_parametrization(module, name, _WeightNorm(dim))


class _SpectralNorm(Module):
    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, n_power_iterations: int, dim: int, eps: float) -> None:
        super().__init__()
        self.dim = dim if dim >= 0 else dim + weight.ndim
        self.eps = eps
        if weight.ndim < 2:
            return
        if n_power_iterations < 1:
            raise SettingError(f"spectral_norm needs n_power_iterations= of 1 or more, got {n_power_iterations}")
        self.n_power_iterations = n_power_iterations
        with hal.no_grad():
            matrix = self._matrix(weight.detach())
            rows, columns = matrix.shape
            drawn = (hal.randn(n, dtype=weight.dtype, device=weight.device) for n in (rows, columns))
            for key, x in zip(("_u", "_v"), drawn, strict=True):
                self.register_buffer(key, F.normalize(x, dim=0, eps=eps))
            self._iterate(matrix, 15)

    def _matrix(self, weight: Tensor) -> Tensor:
        """The weight with `dim` in front and the other axes as one."""
        axes = (self.dim, *(i for i in range(weight.ndim) if i != self.dim))
        moved = ops.permute(weight, axes=axes)
        return ops.reshape(moved, shape=(moved.shape[0], moved.spec.size // moved.shape[0]))

    def _iterate(self, matrix: Tensor, times: int) -> None:
        """Bring u and v nearer to the singular vectors of the largest singular value, in place."""
        for _ in range(times):
            self._u.copy_(F.normalize(matrix @ self._v, dim=0, eps=self.eps))
            self._v.copy_(F.normalize(self._u @ matrix, dim=0, eps=self.eps))

    def forward(self, weight: Tensor) -> Tensor:
        if weight.ndim < 2:
            return F.normalize(weight, dim=0, eps=self.eps)
        matrix = self._matrix(weight)
        if self.training:
            with hal.no_grad():
                self._iterate(matrix.detach(), self.n_power_iterations)
        u, v = self._u.clone(), self._v.clone()  # what is saved for the gradient must not change with the next step
        return weight / ops.sum(u * (matrix @ v))

    def right_inverse(self, value: Tensor) -> Tensor:
        return value  # its spectral norm is taken to be 1, as it comes


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Module:
    """Divide a weight by its largest singular value, which power iterations follow in training.

    Args:
        n_power_iterations: how many for each time that the weight is read.
        dim: the axis of the outputs: 0, or 1 for transposed convolutions, if not given.

    Raises:
        SettingError: the module has no such parameter.

    Source: torch.nn.utils.parametrizations.spectral_norm; Miyato et al., 2018.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise SettingError(f"{type(module).__name__} has no parameter or buffer {name!r} to parametrise")
    axis = dim if dim is not None else 1 if isinstance(module, TRANSPOSED) else 0
    return register_parametrization(module, name, _SpectralNorm(weight, n_power_iterations, axis, eps))

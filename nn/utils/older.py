"""Weight and spectral norm by the names that torch had before parametrisations; what they make is parametrised."""

from __future__ import annotations

from nn.module import Module
from nn.utils import parametrizations
from nn.utils.parametrize import remove_parametrizations


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """The same as `nn.utils.parametrizations.weight_norm`. Source: torch.nn.utils.weight_norm."""
    return parametrizations.weight_norm(module, name, dim)


def remove_weight_norm(module: Module, name: str = "weight") -> Module:
    """Make the weight an ordinary one again. Source: torch.nn.utils.remove_weight_norm."""
    return remove_parametrizations(module, name)


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Module:
    """The same as `nn.utils.parametrizations.spectral_norm`. Source: torch.nn.utils.spectral_norm."""
    return parametrizations.spectral_norm(module, name, n_power_iterations, eps, dim)


def remove_spectral_norm(module: Module, name: str = "weight") -> Module:
    """Make the weight an ordinary one again. Source: torch.nn.utils.remove_spectral_norm."""
    return remove_parametrizations(module, name)

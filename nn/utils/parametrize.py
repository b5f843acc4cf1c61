"""Parametrisations: a tensor of a module that is computed, each time it is read, from others that are trained.

The module keeps the trained ones under `parametrizations.<name>.original`, and its class becomes one that has a
property in place of the parameter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import hal
from hal.errors import SettingError, ShapeError
from hal.tensor import Tensor
from nn.containers import ModuleDict, ModuleList
from nn.module import Module
from nn.parameter import Parameter

_held: dict[tuple[int, str], Tensor] = {}  # what was computed inside `cached()`
_depth = 0


@contextmanager
def cached() -> Iterator[None]:
    """Compute each parametrised tensor once inside the block, not every time it is read.

    Source: torch.nn.utils.parametrize.cached.
    """
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth:
            _held.clear()


class ParametrizationList(ModuleList):
    """What a tensor is computed from (`original`, or `original0`, `original1`, ...), and the modules that do it.

    Source: torch.nn.utils.parametrize.ParametrizationList.
    """

    def __init__(self, modules: Sequence[Module], original: Tensor) -> None:
        super().__init__(modules)
        new: Any = original
        with hal.no_grad(), suppress(NotImplementedError):  # of a map that has no inverse as it is set
            for module in reversed(modules):
                if hasattr(module, "right_inverse"):
                    new = module.right_inverse(new)
        self.is_tensor = isinstance(new, Tensor)
        self.ntensors = 1 if self.is_tensor else len(new)
        if self.is_tensor:
            if new is not original:
                original.data = new.detach()
            self._keep("original", original)
            return
        for i, part in enumerate(new):
            trained = isinstance(original, Parameter)
            self._keep(f"original{i}", Parameter(part.detach(), original.requires_grad) if trained else part.detach())

    def _keep(self, name: str, tensor: Tensor) -> None:
        if isinstance(tensor, Parameter):
            self.register_parameter(name, tensor)
        else:
            self.register_buffer(name, tensor)

    def _originals(self) -> list[Tensor]:
        return [self.original] if self.is_tensor else [getattr(self, f"original{i}") for i in range(self.ntensors)]

    def right_inverse(self, value: Tensor) -> None:
        """Let the originals be such that `value` is computed from them.

        Raises:
            SettingError: a module has no right_inverse.
        """
        new: Any = value
        with hal.no_grad():
            for module in reversed(list(self)):
                inverse = getattr(module, "right_inverse", None)
                if inverse is None:
                    name = type(module).__name__
                    raise SettingError(f"cannot assign to a tensor that {name} makes: {name} has no right_inverse")
                new = inverse(new)
            for held, part in zip(self._originals(), [new] if isinstance(new, Tensor) else new, strict=True):
                held.copy_(part)

    def forward(self) -> Tensor:
        first, *rest = self
        x: Tensor = first(*self._originals())
        for module in rest:
            x = module(x)
        return x


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    """Let `module.<tensor_name>` be what `parametrization` makes of it; a second one goes on where the first ended.

    Its `forward` takes the trained tensor. If it has a `right_inverse`, that gives what is trained (one tensor or
    several) from the value that the tensor has now, and from what is assigned to it later.

    Args:
        unsafe: do not check that shape and dtype stay.

    Raises:
        SettingError: the module has no such parameter or buffer.
        ShapeError: the parametrised tensor would have another shape or dtype.

    Source: torch.nn.utils.parametrize.register_parametrization.
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        parts: ParametrizationList = module.parametrizations[tensor_name]
        before: Tensor = getattr(module, tensor_name)
        if not unsafe:
            with hal.no_grad():
                _check_same(tensor_name, before, parametrization(before))
        with hal.no_grad():
            if hasattr(parametrization, "right_inverse"):
                parts.right_inverse(parametrization.right_inverse(before))
        parts.append(parametrization)
        return module
    original = module._parameters.get(tensor_name, module._buffers.get(tensor_name))
    if original is None:
        raise SettingError(f"{type(module).__name__} has no parameter or buffer {tensor_name!r} to parametrise")
    shape_and_type = original.spec
    parts = ParametrizationList([parametrization], original)
    if not unsafe:
        with hal.no_grad():
            made = parts()
        if made.spec is not shape_and_type:
            raise ShapeError(
                f"the parametrisation of {tensor_name} needs to keep {shape_and_type!r}, and makes {made.spec!r}; "
                "pass unsafe=True if that is meant"
            )
    if not is_parametrized(module):
        _change_class(module)
        module.parametrizations = ModuleDict()
    delattr(module, tensor_name)
    _add_property(type(module), tensor_name)
    module.parametrizations[tensor_name] = parts
    return module


def _check_same(name: str, before: Tensor, after: Tensor) -> None:
    if before.spec is not after.spec:
        raise ShapeError(f"the parametrisation of {name} needs to keep {before.spec!r}, and makes {after.spec!r}")


def _change_class(module: Module) -> None:
    """Give the module a class of its own, for the properties."""
    before = type(module)
    module.__class__ = type(f"Parametrized{before.__name__}", (before,), {"_before_parametrizations": before})


def _add_property(cls: type, name: str) -> None:
    def get(self: Module) -> Tensor:
        parts: ParametrizationList = self.parametrizations[name]
        if not _depth:
            return parts()
        key = id(self), name
        if key not in _held:
            _held[key] = parts()
        return _held[key]

    def put(self: Module, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    setattr(cls, name, property(get, put))


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether this tensor, or any, is parametrised. Source: torch.nn.utils.parametrize.is_parametrized."""
    parts = module._modules.get("parametrizations")
    if not isinstance(parts, ModuleDict) or not hasattr(type(module), "_before_parametrizations"):
        return False
    return len(parts) > 0 if tensor_name is None else tensor_name in parts


def type_before_parametrizations(module: Module) -> type:
    """The class that the module had. Source: torch.nn.utils.parametrize.type_before_parametrizations."""
    found: type = getattr(type(module), "_before_parametrizations", type(module))
    return found


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Make the tensor an ordinary one again.

    Args:
        leave_parametrized: keep the value that it has now, instead of the original that was trained.

    Raises:
        SettingError: it is not parametrised; or the original is several tensors and is to be left.

    Source: torch.nn.utils.parametrize.remove_parametrizations.
    """
    if not is_parametrized(module, tensor_name):
        raise SettingError(f"{type(module).__name__} has no parametrised tensor {tensor_name!r}")
    parts: ParametrizationList = module.parametrizations[tensor_name]
    if not leave_parametrized and not parts.is_tensor:
        raise SettingError(f"{tensor_name} was made of {parts.ntensors} tensors: leave_parametrized=False cannot be")
    with hal.no_grad():
        value = getattr(module, tensor_name).detach().clone() if leave_parametrized else None
    held = parts._originals()[0]
    if value is not None and parts.is_tensor:
        held.data = value
    elif value is not None:
        held = Parameter(value, held.requires_grad) if isinstance(held, Parameter) else value
    del module.parametrizations[tensor_name]
    delattr(type(module), tensor_name)
    if not len(module.parametrizations):
        del module.parametrizations
        module.__class__ = type_before_parametrizations(module)
    if isinstance(held, Parameter):
        module.register_parameter(tensor_name, held)
    else:
        module.register_buffer(tensor_name, held)
    return module

"""Walking through a module: its parts, parameters and buffers, with their dotted names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from hal.tensor import Tensor
from nn.parameter import Parameter

if TYPE_CHECKING:
    from nn.module import Module


class Traversal:
    """What `Module` inherits to list what it consists of. Everything comes in the order in which it was added."""

    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _non_persistent_buffers_set: set[str]

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """The module itself, named `prefix`, and all parts of its parts; one that is used twice comes once."""
        seen: set[Module] = set() if memo is None else memo
        module = cast("Module", self)  # only modules inherit this
        if module in seen:
            return
        if remove_duplicate:
            seen.add(module)
        yield prefix, module
        for name, child in self._modules.items():
            if child is not None:
                yield from child.named_modules(seen, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """The module itself and all parts of its parts."""
        for _, module in self.named_modules():
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The module's own parts with their names."""
        seen = set()
        for name, child in self._modules.items():
            if child is not None and child not in seen:
                seen.add(child)
                yield name, child

    def children(self) -> Iterator[Module]:
        """The module's own parts."""
        for _, child in self.named_children():
            yield child

    def _named(self, table: str, prefix: str, recurse: bool, remove_duplicate: bool) -> Iterator[tuple[str, Any]]:
        own = [(prefix, self)]
        seen = set()
        for path, module in self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else own:
            for name, tensor in getattr(module, table).items():
                if tensor is None or tensor in seen:
                    continue
                if remove_duplicate:
                    seen.add(tensor)
                yield f"{path}.{name}" if path else name, tensor

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their names; one that is shared comes once, under its first name.

        Args:
            prefix: comes before every name.
            recurse: also those of the parts.
            remove_duplicate: with False, a shared parameter comes under each of its names.
        """
        return self._named("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters, each once: what an optimizer is given."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """All buffers with their names."""
        return self._named("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers, each once."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def get_submodule(self, target: str) -> Module:
        """The part with a dotted name, such as `encoder.0`; the module itself for an empty one.

        Raises:
            AttributeError: there is no such part.
        """
        module: Any = self
        for i, name in enumerate(target.split(".") if target else []):
            parts = module._modules
            if name not in parts or parts[name] is None:
                where = ".".join(target.split(".")[:i]) or type(self).__name__
                raise AttributeError(f"there is no module {target!r}: {where} has no part {name!r}, but {list(parts)}")
            module = parts[name]
        found: Module = module
        return found

    def get_parameter(self, target: str) -> Parameter:
        """The parameter with a dotted name, such as `encoder.0.weight`.

        Raises:
            AttributeError: there is no such parameter.
        """
        found: Parameter = self._get("_parameters", target)
        return found

    def get_buffer(self, target: str) -> Tensor:
        """The buffer with a dotted name.

        Raises:
            AttributeError: there is no such buffer.
        """
        found: Tensor = self._get("_buffers", target)
        return found

    def _get(self, table: str, target: str) -> Any:
        path, _, name = target.rpartition(".")
        entries = getattr(self.get_submodule(path), table)
        if entries.get(name) is None:
            kind = table.strip("_")
            raise AttributeError(f"{path or type(self).__name__} has no {name!r} among its {kind}, but {list(entries)}")
        return entries[name]

    def set_submodule(self, target: str, module: Module) -> None:
        """Put `module` in the place of the part with a dotted name, or add it there.

        Raises:
            AttributeError: there is no part to add it to.
        """
        path, _, name = target.rpartition(".")
        setattr(self.get_submodule(path), name, module)

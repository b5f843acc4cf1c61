"""Containers of modules: one after the other, in a list, or by name."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self, overload

from nn.module import Module


def _counted(module: Module) -> dict[str, Module]:
    return module._modules  # type: ignore[return-value]  # containers hold no None


class _Numbered(Module):
    """What `Sequential` and `ModuleList` have in common: parts named 0, 1, 2, …, with the habits of a list."""

    def _key(self, index: Any) -> str:
        number, count = operator.index(index), len(self)
        if not -count <= number < count:
            raise IndexError(f"{type(self).__name__} has {count} modules, there is no number {number}")
        return list(self._modules)[number]

    def _refill(self, modules: Iterable[Module]) -> None:
        parts = list(modules)
        self._modules.clear()
        for i, module in enumerate(parts):
            self.add_module(str(i), module)

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    @overload
    def __getitem__(self, index: int) -> Any: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self._part(list(_counted(self).items())[index])
        return self._modules[self._key(index)]

    def _part(self, items: list[tuple[str, Module]]) -> Self:
        """Another container, of some of the modules with their names."""
        raise NotImplementedError(f"{type(self).__name__} has no _part: write one that holds some of the modules")

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._key(index), module)

    def __delitem__(self, index: int | slice) -> None:
        parts = list(_counted(self).values())
        if not isinstance(index, slice):
            self._key(index)
        del parts[index]
        self._refill(parts)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._modules.values())

    def append(self, module: Module) -> Self:
        """Add a module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add several modules at the end."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> None:
        """Put a module before the one at `index`; those behind it move on by one."""
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__}.insert needs an nn.Module, got {type(module).__name__}")
        parts = list(_counted(self).values())
        if not -len(parts) <= index <= len(parts):
            raise IndexError(f"{type(self).__name__} has {len(parts)} modules, nothing can be put at {index}")
        parts.insert(index, module)
        self._refill(parts)

    def pop(self, index: int | slice) -> Any:
        """Take a module out and give it back."""
        taken = self[index]
        del self[index]
        return taken


class Sequential(_Numbered):
    """Modules that run one after the other, each on the result of the one before.

    Takes modules, one list of modules, or an `OrderedDict` of modules with names.

    >>> from nn import Linear, ReLU
    >>> Sequential(Linear(3, 2), ReLU())
    Sequential(
      (0): Linear(in_features=3, out_features=2, bias=True)
      (1): ReLU()
    )

    Source: torch.nn.Sequential.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], Mapping):
            named = list(args[0].items())
        else:
            modules = args[0] if len(args) == 1 and isinstance(args[0], (list, tuple)) else args
            named = [(str(i), module) for i, module in enumerate(modules)]
        for name, module in named:
            self.add_module(name, module)

    def forward(self, input: Any) -> Any:
        for module in _counted(self).values():
            input = module(input)
        return input

    def _part(self, items: list[tuple[str, Module]]) -> Self:
        return type(self)(OrderedDict(items))

    def __delitem__(self, index: int | slice) -> None:
        keys = list(self._modules)[index] if isinstance(index, slice) else [self._key(index)]
        for key in keys:
            delattr(self, key)
        if all(key.isdigit() for key in self._modules):
            self._refill(_counted(self).values())

    def __add__(self, other: Sequential) -> Sequential:
        if not isinstance(other, Sequential):
            return NotImplemented
        return Sequential(*self, *other)

    def __iadd__(self, other: Sequential) -> Self:
        return self.extend(other) if isinstance(other, Sequential) else NotImplemented

    def __mul__(self, times: int) -> Sequential:
        return Sequential(*[module for _ in range(times) for module in self])

    __rmul__ = __mul__


class ModuleList(_Numbered):
    """A list whose modules belong to the module that holds it; it has no forward of its own.

    Source: torch.nn.ModuleList.
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        self.extend(modules or [])

    def _part(self, items: list[tuple[str, Module]]) -> Self:
        return type(self)(module for _, module in items)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])

    def __iadd__(self, other: Iterable[Module]) -> Self:
        return self.extend(other)

    def __repr__(self) -> str:
        """Modules that look the same are shown once, with their numbers."""
        lines: list[tuple[int, int, str]] = []
        for i, module in enumerate(self):
            text = repr(module)
            if lines and lines[-1][2] == text:
                lines[-1] = (lines[-1][0], i, text)
            else:
                lines.append((i, i, text))
        if not lines:
            return f"{self._get_name()}()"
        shown = [f"({a}): {t}" if a == b else f"({a}-{b}): {b - a + 1} x {t}" for a, b, t in lines]
        return f"{self._get_name()}(\n  " + "\n".join(shown).replace("\n", "\n  ") + "\n)"


class ModuleDict(Module):
    """A dictionary whose modules belong to the module that holds it, in the order in which they were put in.

    Source: torch.nn.ModuleDict.
    """

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        super().__init__()
        self.update(modules or {})

    def __getitem__(self, key: str) -> Any:
        if key not in self._modules:
            raise KeyError(f"{type(self).__name__} has no module {key!r}, but {list(self._modules)}")
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: str) -> bool:
        return key in self._modules

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._modules.keys()

    def values(self) -> Iterable[Any]:
        """The modules."""
        return self._modules.values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """The names with their modules."""
        return self._modules.items()

    def clear(self) -> None:
        """Take everything out."""
        self._modules.clear()

    def pop(self, key: str) -> Any:
        """Take a module out and give it back."""
        taken = self[key]
        del self[key]
        return taken

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Put modules in, in the place of those that have the same name."""
        for name, module in dict(modules).items():
            self[name] = module

"""State dictionaries: the parameters and buffers of a module by name, and loading them all or not at all."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import hal
from hal.errors import StateError
from hal.tensor import Tensor
from nn.parameter import Parameter, is_lazy

if TYPE_CHECKING:
    from nn.module import Module

EXTRA = "_extra_state"  # the name of what a module keeps besides tensors


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` did not find, and what it found no use for."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


class Entry(NamedTuple):
    """One key of a state dictionary: the module and the name under which its tensor is kept."""

    owner: Module
    name: str
    tensor: Tensor


def _own(module: Module) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in module._parameters.items():
        if parameter is not None:
            yield name, parameter
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in module._non_persistent_buffers_set:
            yield name, buffer


def entries(module: Module) -> Iterator[tuple[str, Entry]]:
    """All parameters and persistent buffers with their keys; a tensor that is shared comes once for each key."""
    for prefix, part in _by_prefix(module):
        for name, tensor in _own(part):
            yield prefix + name, Entry(part, name, tensor)


def call(module: Module, kind: str, *args: Any) -> None:
    """Call the hooks of this kind of one module."""
    for hook in list(module._state_hooks.get(kind, {}).values()):
        changed = hook.function(module, *args)
        if changed is not None:
            raise TypeError(
                f"a state_dict hook of {type(module).__name__} changes what it is given and returns None, "
                f"got {type(changed).__name__}"
            )


def collect(module: Module, out: dict[str, Any], prefix: str, keep_vars: bool) -> None:
    """Put all of a module's state into `out`, with the hooks of it and of its parts."""
    call(module, "before saving", prefix, keep_vars)
    for name, tensor in _own(module):
        out[prefix + name] = tensor if keep_vars or is_lazy(tensor) else tensor.detach()
    if hasattr(type(module), "get_extra_state"):
        out[prefix + EXTRA] = module.get_extra_state()
    for name, child in module._modules.items():
        if child is not None:
            collect(child, out, f"{prefix}{name}.", keep_vars)
    call(module, "after saving", out, prefix, {})


def _by_prefix(module: Module, prefix: str = "") -> Iterator[tuple[str, Module]]:
    """The module and its parts with what comes before the names of their tensors; a shared one comes each time."""
    yield prefix, module
    for name, child in module._modules.items():
        if child is not None:
            yield from _by_prefix(child, f"{prefix}{name}.")


def load(module: Module, state: Mapping[str, Any], strict: bool, assign: bool) -> IncompatibleKeys:
    """Copy the tensors of `state` into the module. Everything is checked before anything is changed.

    Raises:
        StateError: keys are missing or unexpected (if `strict`), or a shape differs.
    """
    if not isinstance(state, Mapping):
        raise TypeError(
            f"load_state_dict needs a dictionary of tensors, got {type(state).__name__}: use hal.load(file) first"
        )
    state = dict(state)
    missing: list[str] = []
    unexpected: list[str] = []
    problems: list[str] = []
    parts = list(_by_prefix(module))
    for prefix, part in parts:
        call(part, "before loading", state, prefix, {}, strict, missing, unexpected, problems)
    wanted = dict(entries(module))
    extra = {prefix + EXTRA: part for prefix, part in parts if hasattr(type(part), "set_extra_state")}
    missing += [k for k, e in wanted.items() if k not in state and e.name not in e.owner._may_be_missing]
    missing += [k for k in extra if k not in state]
    unexpected += [k for k in state if k not in wanted and k not in extra]
    keys = IncompatibleKeys(missing, unexpected)
    judged_later = any("after loading" in part._state_hooks for _, part in parts)
    if strict and not judged_later:
        problems += _key_problems(keys, wanted, state)
    ready: list[tuple[Entry, Tensor]] = []
    for key, entry in wanted.items():
        if key not in state:
            continue
        value = _as_tensor(key, state[key], entry.tensor, assign)
        if is_lazy(value):
            if not is_lazy(entry.tensor):
                problems.append(
                    f'"{key}" has no shape in the state (it was saved before the first forward pass), '
                    f"but shape {entry.tensor.shape} in the module"
                )
            continue
        if not is_lazy(entry.tensor) and value.shape != entry.tensor.shape:
            problems.append(
                f'size mismatch for "{key}": the state has shape {value.shape}, the module has {entry.tensor.shape}'
            )
            continue
        ready.append((entry, value if assign else value.to(entry.tensor.dtype)))
    _refuse(module, problems, "nothing was loaded")
    with hal.no_grad():
        for entry, value in ready:
            _put(entry, value, assign)
    for key, part in extra.items():
        if key in state:
            part.set_extra_state(state[key])
    for _, part in reversed(parts):
        call(part, "after loading", keys)
    if strict and judged_later:
        _refuse(module, _key_problems(keys, wanted, state), "what fits was loaded")
    return keys


def _refuse(module: Module, problems: list[str], done: str) -> None:
    if problems:
        raise StateError(f"the state does not fit {type(module).__name__}, and {done}:\n  " + "\n  ".join(problems))


def _put(entry: Entry, value: Tensor, assign: bool) -> None:
    if assign:
        is_parameter = isinstance(entry.tensor, Parameter)
        setattr(entry.owner, entry.name, Parameter(value, entry.tensor.requires_grad) if is_parameter else value)
        return
    if is_lazy(entry.tensor):
        entry.tensor.materialize(value.shape)
    entry.tensor.copy_(value)


def _as_tensor(key: str, value: Any, target: Tensor, assign: bool) -> Tensor:
    if isinstance(value, Tensor):
        return value if is_lazy(value) else value.detach()
    try:
        array = np.asarray(value)
        if not assign:
            array = array.astype(target.dtype.numpy)  # on the host: the device may not have the dtype of the file
        return hal.tensor(array, device=target.device)
    except (TypeError, ValueError, RuntimeError) as error:
        what = f'a {type(value).__name__} under "{key}", where a tensor was needed'
        raise StateError(f"the state has {what}; it cannot be read as an array: {error}") from None


def _key_problems(keys: IncompatibleKeys, wanted: Collection[str], given: Collection[str]) -> list[str]:
    problems = []
    missing, unexpected = keys
    of_state, of_module = _prefix(missing, unexpected, wanted, given), _prefix(unexpected, missing, given, wanted)
    for whose, before, name in (
        ("state", of_state, f"k.removeprefix({of_state!r})"),
        ("module", of_module, f"{of_module!r} + k"),
    ):
        if before:
            return [
                f'all names of the {whose} begin with "{before}", and those of the other do not: load '
                f"{{{name}: v for k, v in state.items()}}"
            ]
    if missing:
        problems.append("missing keys: " + ", ".join(f'"{k}"{_near(k, unexpected, "the state has")}' for k in missing))
    if unexpected:
        problems.append(
            "unexpected keys: " + ", ".join(f'"{k}"{_near(k, missing, "the module has")}' for k in unexpected)
        )
    return problems


def _prefix(shorter: list[str], longer: list[str], all_shorter: Collection[str], all_longer: Collection[str]) -> str:
    """What the names on one side have before those on the other; nothing if it is not as simple as that."""
    if not shorter:
        return ""
    before = next((k.removesuffix(shorter[0]) for k in longer if k.endswith(f".{shorter[0]}")), "")
    fits = all(k.startswith(before) for k in all_longer) and all(k.removeprefix(before) in all_shorter for k in longer)
    return before if fits and all(before + k in all_longer for k in shorter) else ""


def _near(key: str, others: list[str], who_has: str) -> str:
    close = difflib.get_close_matches(key, others, n=1, cutoff=0.6)
    return f' ({who_has} "{close[0]}")' if close else ""

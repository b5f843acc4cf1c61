"""Hooks of modules: functions that are called before and after `forward`, and around the backward pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import hal
from hal.tensor import Tensor

if TYPE_CHECKING:
    from nn.module import Module

Function = Callable[..., Any]
_numbers = itertools.count()


@dataclass(frozen=True)
class Hook:
    """A function, and how it wants to be called.

    Attributes:
        with_kwargs: it is also given the keyword arguments.
        always: it is called even if `forward` raised an error.
    """

    function: Function
    with_kwargs: bool = False
    always: bool = False


Hooks = dict[int, Hook]


class RemovableHandle:
    """Takes a hook away again: with `remove()`, or at the end of a `with` block.

    Source: torch.utils.hooks.RemovableHandle.
    """

    def __init__(self, hooks: Hooks, number: int) -> None:
        self.hooks = hooks
        self.id = number

    def remove(self) -> None:
        """Take the hook away; nothing happens if it is gone already."""
        self.hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def add_hook(hooks: Hooks, hook: Hook, prepend: bool = False) -> RemovableHandle:
    """Put `hook` after those that are there, or before them."""
    number = next(_numbers)
    if prepend:
        others = dict(hooks)
        hooks.clear()
        hooks[number] = hook
        hooks.update(others)
    else:
        hooks[number] = hook
    return RemovableHandle(hooks, number)


def call(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`module.forward(*args, **kwargs)` with all hooks of the module around it."""
    try:
        for hook in list(module._forward_pre_hooks.values()):
            args, kwargs = _call_before(module, hook, args, kwargs)
        watch = _Backward(module) if module._backward_hooks or module._backward_pre_hooks else None
        if watch is not None:
            args = watch.enter(args)
        result = module.forward(*args, **kwargs)
    except Exception:
        for hook in list(module._forward_hooks.values()):
            if hook.always:
                _call_after(module, hook, args, kwargs, None)
        raise
    for hook in list(module._forward_hooks.values()):
        changed = _call_after(module, hook, args, kwargs, result)
        result = result if changed is None else changed
    return result if watch is None else watch.leave(result)


def _call_before(
    module: Module, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    if not hook.with_kwargs:
        changed = hook.function(module, args)
        if changed is None:
            return args, kwargs
        return changed if isinstance(changed, tuple) else (changed,), kwargs
    changed = hook.function(module, args, kwargs)
    if changed is None:
        return args, kwargs
    if not (isinstance(changed, tuple) and len(changed) == 2):
        raise TypeError(
            f"a forward pre-hook with_kwargs of {type(module).__name__} must give None or (args, kwargs), "
            f"got {changed!r}"
        )
    return changed


def _call_after(module: Module, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    if hook.with_kwargs:
        return hook.function(module, args, kwargs, result)
    return hook.function(module, args, result)


class _Backward:
    """One call of a module, watched in the backward pass.

    The tensors that go in and those that come out each pass through a step that leaves them as they are and whose
    gradient is seen here: first that of the outputs, then that of the inputs, when the hooks are called.
    """

    def __init__(self, module: Module) -> None:
        self.module = module
        self.grad_output: tuple[Any, ...] = ()
        self.watches_inputs = False

    def enter(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        places = [i for i, x in enumerate(args) if isinstance(x, Tensor) and x.requires_grad]
        if not places or not hal.is_grad_enabled():
            return args
        self.watches_inputs = True

        def pull(*gs: Any) -> tuple[Any, ...]:
            found = dict(zip(places, gs, strict=True))
            changed = self.call_hooks(tuple(found.get(i) for i in range(len(args))))
            return tuple(changed[i] for i in places)

        passed = dict(zip(places, _through([args[i] for i in places], pull), strict=True))
        return tuple(passed.get(i, x) for i, x in enumerate(args))

    def leave(self, result: Any) -> Any:
        outs = list(result) if isinstance(result, (tuple, list)) else [result]
        places = [i for i, x in enumerate(outs) if isinstance(x, Tensor) and x.requires_grad]
        if not places or not hal.is_grad_enabled():
            return result

        def pull(*gs: Any) -> tuple[Any, ...]:
            found = dict(zip(places, gs, strict=True))
            grad_output = tuple(found.get(i) for i in range(len(outs)))
            for hook in list(self.module._backward_pre_hooks.values()):
                changed = hook.function(self.module, grad_output)
                if changed is not None:
                    grad_output = changed if isinstance(changed, tuple) else (changed,)
            self.grad_output = grad_output
            if not self.watches_inputs:
                self.call_hooks((None,))
            return tuple(grad_output[i] for i in places)

        for i, x in zip(places, _through([outs[i] for i in places], pull), strict=True):
            outs[i] = x
        if isinstance(result, list):
            return outs
        if not isinstance(result, tuple):
            return outs[0]
        return type(result)(*outs) if hasattr(result, "_fields") else tuple(outs)

    def call_hooks(self, grad_input: tuple[Any, ...]) -> tuple[Any, ...]:
        for hook in list(self.module._backward_hooks.values()):
            changed = hook.function(self.module, grad_input, self.grad_output)
            if changed is not None:
                grad_input = changed if isinstance(changed, tuple) else (changed,)
        return grad_input


def _through(tensors: list[Tensor], pull: Function) -> tuple[Tensor, ...]:
    """The tensors as they are, recorded as one step whose gradient is `pull(*gradients)`."""
    step = hal.custom_gradient(lambda *xs: (tuple(xs), pull))
    passed: tuple[Tensor, ...] = step(*tensors)
    return passed

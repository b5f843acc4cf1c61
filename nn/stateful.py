"""What `Module` inherits to give and take its state, with hooks before and after either."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from nn import state
from nn.hooks import Hook, Hooks, RemovableHandle, add_hook
from nn.state import IncompatibleKeys


class Stateful:
    """State dictionaries, for loading and saving. The hooks of each kind come into being with the first of them."""

    _state_hooks: Mapping[str, Hooks] = {}  # by kind; a module with hooks has a dictionary of its own

    def state_dict(
        self: Any, *, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """All parameters and persistent buffers by name, as tensors that share memory with the module.

        A module that has more to keep has methods `get_extra_state()`, which gives it, and `set_extra_state(state)`; it
        is there under the name `_extra_state`.

        Args:
            destination: a dictionary to put them into.
            prefix: comes before every name.
            keep_vars: give the parameters themselves instead of detached tensors.
        """
        out = OrderedDict() if destination is None else destination
        state.collect(self, out, prefix, keep_vars)
        return out

    def load_state_dict(
        self: Any, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy tensors into the parameters and buffers of the same names; all of them, or none if anything is wrong.

        Args:
            state_dict: tensors (or NumPy arrays) by name.
            strict: whether missing and unexpected names are an error.
            assign: let the module have these very tensors, with their dtype and device, instead of copying.

        Returns:
            The missing and the unexpected names.

        Raises:
            StateError: names or shapes do not fit; the message has each with near matches.
        """
        return state.load(self, state_dict, strict, assign)

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, prefix, keep_vars)` before the module's part of a state dictionary is made."""
        return self._add_state_hook("before saving", hook)

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, state_dict, prefix, {})` after the module and its parts have put theirs in."""
        return self._add_state_hook("after saving", hook)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, state_dict, prefix, {}, strict, missing_keys, unexpected_keys, errors)` before loading.

        It may change the dictionary, which is a copy, and add to the lists: to rename what older versions called
        otherwise.
        """
        return self._add_state_hook("before loading", hook)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, incompatible_keys)` after loading; names that it takes out of the lists are no error."""
        return self._add_state_hook("after loading", hook)

    def _add_state_hook(self, kind: str, hook: Callable[..., Any]) -> RemovableHandle:
        if not callable(hook):
            raise TypeError(f"a state_dict hook needs to be a function, got {type(hook).__name__}")
        own: dict[str, Hooks] = self.__dict__.setdefault("_state_hooks", {})
        return add_hook(own.setdefault(kind, {}), Hook(hook))

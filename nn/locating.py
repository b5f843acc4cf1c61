"""Errors of a forward pass say in which layer of the model they were raised."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nn.module import Module

_LAYER = "_raised_in"  # the attribute of an error that holds the innermost layer, and the text before it was located


def locate(error: Exception, module: Module) -> None:
    """Note that `error` passed through a call of `module`: the message then ends with the path from there.

    Modules call this from the innermost to the outermost, so the path that remains begins at the whole model.
    """
    found = error.__dict__.get(_LAYER)
    if found is None:
        error.__dict__[_LAYER] = module, str(error.args[0]) if error.args else ""
        return
    inner, text = found
    path = next((name for name, part in module.named_modules() if part is inner), "")
    if path:
        shown = type(inner).__name__ if any(True for _ in inner.children()) else repr(inner)
        error.args = (f"{text}; in {path} of {type(module).__name__}, which is {shown}", *error.args[1:])

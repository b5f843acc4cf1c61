"""Which names a module's parts may have, and the errors about attributes that are missing or came too early."""

from __future__ import annotations


def check_name(name: str) -> None:
    """Raise TypeError or KeyError if `name` cannot be a part of a state dictionary's key."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a parameter, buffer or module must be a string, got {type(name).__name__}")
    if not name or "." in name:
        raise KeyError(f"the name of a parameter, buffer or module cannot be empty or contain a dot, got {name!r}")


def not_begun(module: object, what: str) -> AttributeError:
    """The error for using a module whose `__init__` did not call `super().__init__()`."""
    name = type(module).__name__
    return AttributeError(f"{name} {what}: call super().__init__() in the first line of {name}.__init__")


def no_attribute(module: object, name: str) -> AttributeError:
    """The error for an attribute that is not there; Python adds near matches to it."""
    return AttributeError(f"{type(module).__name__!r} object has no attribute {name!r}", name=name, obj=module)

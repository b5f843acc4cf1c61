"""The op table: one record for every operation, found by looking through the modules of this folder.

An op is added by writing it into a module here, and nowhere else: `TABLE`, `ops.<name>` and `hal.<name>` follow.
"""

from __future__ import annotations

import importlib
import pkgutil

from hal.errors import PluginError
from hal.op import Op

TABLE: dict[str, Op] = {}


def add_to_table(op: Op, where: str) -> None:
    """Put a record into the table; `where` is named if the name is taken.

    Raises:
        PluginError: another op has this name.
    """
    if TABLE.setdefault(op.name, op) is not op:
        raise PluginError(f"{where} adds an op named {op.name!r}, but the table has one already: choose another name")
    globals()[op.name] = op  # so that ops.<name> costs no more than any attribute


def __getattr__(name: str) -> Op:
    found = TABLE.get(name)
    if found is None:
        raise AttributeError(f"there is no op {name!r} in the table")
    return found


def _find_all() -> None:
    for module_info in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        for value in vars(module).values():
            if isinstance(value, Op) and TABLE.get(value.name) is not value:
                add_to_table(value, module.__name__)


_find_all()

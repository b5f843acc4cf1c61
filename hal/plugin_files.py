"""Plugins without a package: the Python files that HAL_PLUGIN_PATH names, found and imported."""

from __future__ import annotations

import importlib.util
import os
import sys
import zlib
from pathlib import Path
from types import ModuleType

from hal.errors import PluginError
from hal.plugin import Hooks

HOOKS = tuple(name for name in vars(Hooks) if name.startswith("hal_"))


def plugin_files(value: str) -> list[Path]:
    """The plugins that a list of paths stands for, each once, in the order of the list.

    A path is a Python file, a package (a folder with `__init__.py`), or a folder of these; a file whose name begins
    with `_` or `.` is no plugin. A path that leads to none of them stands for itself: `load_file` says what is wrong.
    """
    found: list[Path] = []
    for part in value.split(os.pathsep):
        if not part.strip():
            continue
        place = Path(part.strip()).expanduser().resolve()
        inside = [p for p in sorted(place.iterdir()) if _is_plugin(p)] if place.is_dir() else []
        found += [place] if _is_plugin(place) or not inside else inside
    return list(dict.fromkeys(found))


def load_file(path: Path) -> ModuleType:
    """Import a Python file or package from where it lies, under its own name unless another module has that.

    Raises:
        PluginError: it is not there, is no Python file or package, or has none of the hooks.
        BaseException: whatever its code raises.
    """
    if not path.exists():
        raise PluginError("is named in HAL_PLUGIN_PATH, but is not there")
    if not _is_plugin(path):
        what = "a folder without Python files" if path.is_dir() else "no Python file"
        raise PluginError(f"is named in HAL_PLUGIN_PATH, but is {what}")
    source = path / "__init__.py" if path.is_dir() else path
    module = sys.modules.get(path.stem)
    if module is None or not _comes_from(module, source):
        module = _import(_free_name(path), source)
    if not any(hasattr(module, hook) for hook in HOOKS):
        raise PluginError(f"has none of the hooks that make a plugin ({', '.join(HOOKS)}): add one, with @hookimpl")
    return module


def _import(name: str, source: Path) -> ModuleType:
    inside = [str(source.parent)] if source.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, source, submodule_search_locations=inside)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as an import does: dataclasses and pickle look there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _is_plugin(path: Path) -> bool:
    if path.name.startswith(("_", ".")):
        return False
    return path.suffix == ".py" if path.is_file() else (path / "__init__.py").is_file()


def _comes_from(module: ModuleType, source: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve() == source


def _free_name(path: Path) -> str:
    """The file's own name, so that others can import it too, unless that would hide a module of this name."""
    try:
        taken = path.stem in sys.modules or importlib.util.find_spec(path.stem) is not None
    except (ImportError, ValueError):  # a name with a dot in it
        taken = True
    return f"{path.stem}_{zlib.crc32(bytes(path)):08x}" if taken else path.stem

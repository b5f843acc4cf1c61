"""Runs cases in this process: what a worker does, and the suite itself when it is asked not to use one."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hal
from hal import ops, report
from hal.device import Device
from hal.errors import PluginError
from hal.testing.case import Case, Level, Outcome
from hal.testing.levels import all_levels

LIBRARIES = ("numpy", "ml_dtypes", "hal-runtime")
DETAIL = 2000  # characters of a detail that are kept


@dataclass(frozen=True)
class Opened:
    """What the suite needs to know of a device, as plain values."""

    device: str
    facts: dict[str, Any]
    versions: dict[str, str]
    levels: list[tuple[str, str, bool, bool]]  # name, doc, basic, default
    known_failures: dict[str, str]


@dataclass(frozen=True)
class Listed:
    """A case, as plain values."""

    id: str
    op: str
    dtype: str
    needs: tuple[str, ...]


class Runner:
    """A device, and the cases of its levels."""

    def __init__(self) -> None:
        self._levels: dict[str, Level] = {}
        self._cases: dict[str, Case] = {}
        self._device: Device | None = None

    def open(self, device: str | Device, register: Iterable[str] = ()) -> Opened:
        """Find the device.

        Raises:
            DeviceError, PluginError: it is not there, or what should be registered cannot be.
        """
        for name in register:
            _register(name)
        self._device = found = Device(device)
        self._levels = {level.name: level for level in all_levels()}
        backend = found.backend
        facts = {
            "describe": {str(k): str(v) for k, v in backend.describe(found).items()},
            "backend": f"{type(backend).__module__}.{type(backend).__qualname__}",
            "kernels": len(backend.kernels),
            "dtypes": sorted(d.name for d in backend.dtypes),
            "training": backend.training,
            "views": backend.views,
            "host_memory": backend.host_memory,
            "max_memory": backend.max_memory(found),
        }
        levels = [(v.name, v.doc, v.basic, v.default) for v in self._levels.values()]
        return Opened(str(found), facts, _versions(found), levels, dict(backend.known_failures))

    def list(self, level: str) -> list[Listed]:
        """The cases of a level."""
        assert self._device is not None
        self._cases = {}
        for case in self._levels[level].cases(self._device):
            if case.id in self._cases:
                raise PluginError(f"level {level} has two cases with the id {case.id}: ids must be unique")
            self._cases[case.id] = case
        return [Listed(c.id, c.op, c.dtype, c.needs) for c in self._cases.values()]

    def run(self, ids: Iterable[str]) -> Iterator[tuple[str, Outcome, float]]:
        """Run cases of the level that was listed last: the id, what came of it, and seconds."""
        assert self._device is not None
        for i in ids:
            start = time.perf_counter()
            outcome = run_case(self._cases[i], self._device)
            yield i, outcome, time.perf_counter() - start


def run_case(case: Case, device: Device) -> Outcome:
    """What came of a case; whatever it raises is a crash. What ran elsewhere on the way is no native case."""
    try:
        with report.placement_report() as counted:
            outcome = case.run(device)
    except Exception as error:  # a stranger's code
        return Outcome("crash", detail=_story(error))
    fell = [e for e in counted.fallbacks.values() if e.source == str(device) and not ops.TABLE[e.what].host_only]
    if outcome.status not in ("native", "decomposed") or not fell:
        return outcome
    reason = f"{', '.join(sorted({e.what for e in fell}))} fell back"
    return replace(outcome, status="fallback", reason=reason, bytes=sum(e.bytes for e in fell))


def _story(error: BaseException) -> str:
    """The error and the last lines that led to it."""
    trace = traceback.extract_tb(error.__traceback__)
    lines = [f"  {Path(f.filename).name}:{f.lineno} in {f.name}: {f.line}" for f in trace[-4:]]
    cause = f" (from {error.__cause__!r})" if error.__cause__ is not None else ""
    return "\n".join([f"{type(error).__name__}: {error}{cause}"[:DETAIL], *lines])


def _register(name: str) -> None:
    """Register what `module:attribute` or `file.py:attribute` names: a plugin, a backend, or what makes one."""
    from hal import registry

    where, _, attribute = name.rpartition(":")
    if not where:
        where, attribute = name, ""
    try:
        module = _from_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
        plugin: Any = module
        for part in attribute.split(".") if attribute else ():
            plugin = getattr(plugin, part)
    except (ImportError, AttributeError, OSError) as error:
        takes = "it takes module:attribute or file.py:attribute"
        raise PluginError(f"cannot register {name!r}: {error}; {takes}") from error
    if callable(plugin) and not isinstance(plugin, type):
        plugin = plugin()
    if getattr(plugin, "name", None) in registry.registry().backends:
        return  # a second run in this process
    registry.register(plugin, attribute or where)


def _from_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


def _versions(device: Device) -> dict[str, str]:
    from hal.registry import registry

    found = {"hal": hal.__version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    source = registry().sources.get(device.type)
    if source is not None:
        found["backend"] = str(source)
    return found


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Environment variables for the length of a block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

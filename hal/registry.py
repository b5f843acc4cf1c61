"""Finds plugins and what they bring: backends, ops, kernels, commands. A broken one is named and left out.

Plugins are modules behind the entry-point group `hal`, and the files of HAL_PLUGIN_PATH. They are imported when the
first device, op or command is looked for, not by `import hal`; a plugin imports its heavy libraries later still, when
its devices are asked for.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import pluggy

from hal import config
from hal.device import Device, chosen
from hal.errors import DeviceError, PluginError
from hal.op import Op
from hal.plugin import API_VERSION, OLDEST_API_VERSION, Backend, Hooks, Kernels, Unavailable
from hal.plugin_files import load_file, plugin_files

if TYPE_CHECKING:
    import click

    from hal.graph.graph import Rewrite
    from hal.testing.case import Level

GROUP = "hal"
OURS = "hal-runtime"


@dataclass(frozen=True)
class Problem:
    """A plugin that was left out, and why.

    Attributes:
        plugin: name of its entry point or file, or of the object that was registered in code.
        distribution: name and version of the package that it came in, or its file; empty for code.
        message: one line.
        trace: its traceback, if it raised.
    """

    plugin: str
    distribution: str
    message: str
    trace: str = ""


@dataclass(frozen=True)
class Source:
    """Where a backend came from."""

    plugin: str
    distribution: str

    def __str__(self) -> str:
        return (
            f"plugin {self.plugin} of {self.distribution}"
            if self.distribution
            else f"{self.plugin}, registered in code"
        )


class Registry:
    """What all plugins together bring. Made once, on first use; `register` adds to it."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.backends: dict[str, Backend] = {}
        self.sources: dict[str, Source] = {}
        self._manager = pluggy.PluginManager("hal")
        self._manager.add_hookspecs(Hooks)
        self._doubled: dict[str, list[Source]] = {}
        self._plugins: list[tuple[Source, Any]] = []
        self._kernels: list[tuple[Source, Mapping[str, Kernels]]] = []
        self.added_kernels: dict[str, list[tuple[Source, Kernels]]] = {}

    def load_entry_points(self) -> None:
        """Import every installed plugin that HAL_PLUGINS allows. What goes wrong becomes a problem, not an error."""
        import importlib.metadata  # drags in the email package, which `import hal` should not wait for

        for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda e: e.name):
            distribution = f"{entry.dist.name} {entry.dist.version}" if entry.dist else ""
            if distribution.split(" ")[0] == OURS or _is_allowed(entry.name):
                self._load(entry.load, Source(entry.name, distribution))

    def load_path(self) -> None:
        """Import the files that HAL_PLUGIN_PATH names, as far as HAL_PLUGINS allows, in the same way."""
        for path in plugin_files(config.get("HAL_PLUGIN_PATH")):
            if _is_allowed(path.stem):
                self._load(partial(load_file, path), Source(path.stem, str(path)))

    def _load(self, load: Callable[[], Any], source: Source) -> None:
        try:
            plugin = load()
        except PluginError as error:
            self._report(source.plugin, source.distribution, str(error))
        except (Exception, SystemExit) as error:  # whatever a stranger's module raises
            self._report(source.plugin, source.distribution, f"cannot be imported: {error!r}", error)
        else:
            self.add(plugin, source)

    def add(self, plugin: Any, source: Source) -> None:
        """Take over what `plugin` brings: a module or object with hooks, a backend, or a backend's class."""
        if isinstance(plugin, type) and issubclass(plugin, Backend):
            plugin = plugin()
        if isinstance(plugin, Backend):
            self._add_backend(plugin, source)
            return
        if not self._speaks_our_api(plugin, source):
            return
        try:
            self._manager.register(plugin, name=f"{source.plugin} ({source.distribution})")
            self._manager.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            self._report(source.plugin, source.distribution, f"does not fit the hooks: {error}", error)
            return
        for backend in self._ask(plugin, source, "hal_backends"):
            if isinstance(backend, Backend):
                self._add_backend(backend, source)
            else:
                self._report(source.plugin, source.distribution, f"hal_backends gave {backend!r}, which is no Backend")
        for op in self._ask(plugin, source, "hal_ops"):
            self._add_op(op, source)
        self._add_kernels(plugin, source)
        self._plugins.append((source, plugin))

    def commands(self) -> Iterator[click.Command]:
        """The commands that plugins bring."""
        return self._brought("hal_commands")

    def levels(self) -> Iterator[Level]:
        """The levels of the conformance suite that plugins bring."""
        return self._brought("hal_conformance")

    def rewrites(self) -> Iterator[Rewrite]:
        """The rewrites of compiled graphs that plugins bring."""
        return self._brought("hal_rewrites")

    def _brought(self, hook: str) -> Iterator[Any]:
        for source, plugin in self._plugins:
            yield from self._ask(plugin, source, hook)

    def backend(self, name: str) -> Backend:
        """The backend called `name`.

        Raises:
            PluginError: two plugins bring one of that name.
            DeviceError: there is none.
        """
        if name in self._doubled:
            both = " and ".join(map(str, self._doubled[name]))
            raise PluginError(
                f"backend {name!r} comes from {both}: uninstall one of them, or choose with HAL_PLUGINS (a comma list)"
            )
        found = self.backends.get(name)
        if found is not None:
            return found
        broken = [p for p in self.problems if p.plugin == name]
        if broken:
            raise DeviceError(
                f"backend {name!r} cannot be used: plugin {broken[0].plugin} of {broken[0].distribution} "
                f"{broken[0].message} (`hal devices -v` shows its traceback)"
            )
        known = sorted(self.backends)
        raise DeviceError(
            f"there is no backend {name!r}; there {'is' if len(known) == 1 else 'are'} {', '.join(known)}"
            f"{config.did_you_mean(name, known)} (another comes with its plugin: `pip install` the package that has it)"
        )

    def _report(self, plugin: str, distribution: str, message: str, error: BaseException | None = None) -> None:
        trace = "".join(traceback.format_exception(error)) if error is not None else ""
        self.problems.append(Problem(plugin, distribution, message, trace))
        if config.logs("plugins"):
            print(f"hal: plugin {plugin} {message}", file=sys.stderr)

    def _speaks_our_api(self, plugin: Any, source: Source) -> bool:
        built_for = getattr(plugin, "hal_api", API_VERSION)
        if OLDEST_API_VERSION <= built_for <= API_VERSION:
            return True
        cure = f"upgrade {OURS}" if built_for > API_VERSION else f"upgrade {source.distribution or source.plugin}"
        ours = f"{OLDEST_API_VERSION} to {API_VERSION}" if OLDEST_API_VERSION < API_VERSION else str(API_VERSION)
        message = f"was built for plugin API {built_for}, this hal speaks {ours}: {cure}"
        self._report(source.plugin, source.distribution, message)
        return False

    def _ask(self, plugin: Any, source: Source, hook: str) -> list[Any]:
        """The answers of one plugin to one hook; pluggy's own call would let one failure spoil all plugins."""
        function = getattr(plugin, hook, None)
        if function is None:
            return []
        try:
            return list(function())
        except Exception as error:  # a stranger's code
            self._report(source.plugin, source.distribution, f"{hook} failed: {error!r}", error)
            return []

    def _add_backend(self, backend: Backend, source: Source) -> None:
        # Not hasattr(backend, ...): asking a backend for its kernels may import all of them.
        missing = [p for p in ("name", "kernels") if not hasattr(type(backend), p) and p not in vars(backend)]
        if missing:
            self._report(
                source.plugin, source.distribution, f"{type(backend).__name__} has no {' and no '.join(missing)}"
            )
            return
        name = backend.name
        if name in self.backends or name in self._doubled:
            first = self._doubled.setdefault(name, [self.sources[name]] if name in self.sources else [])
            first.append(source)
            self.backends.pop(name, None)
            both = " and ".join(map(str, first))
            self._report(source.plugin, source.distribution, f"brings backend {name!r}, which comes from {both}")
            return
        self.backends[name] = backend
        self.sources[name] = source

    def _add_op(self, op: Any, source: Source) -> None:
        from hal import ops

        if not isinstance(op, Op):
            self._report(source.plugin, source.distribution, f"hal_ops gave {op!r}, which is no Op")
            return
        try:
            ops.add_to_table(op, str(source))
        except PluginError as error:
            self._report(source.plugin, source.distribution, str(error))

    def _add_kernels(self, plugin: Any, source: Source) -> None:
        hook = getattr(plugin, "hal_kernels", None)
        if hook is None:
            return
        try:
            self._kernels.append((source, dict(hook())))
        except Exception as error:  # a stranger's code
            self._report(source.plugin, source.distribution, f"hal_kernels failed: {error!r}", error)

    def add_all_kernels(self) -> None:
        """Put the kernels that plugins bring for existing backends into their tables, once."""
        for name in self.backends:
            self._add_kernels_to(name)

    def _add_kernels_to(self, name: str) -> None:
        for source, tables in self._kernels:
            if name in tables and isinstance(tables, dict):
                added = tables.pop(name)
                self.backends[name].kernels.update(added)
                self.added_kernels.setdefault(name, []).append((source, added))


def _is_allowed(name: str) -> bool:
    """Whether HAL_PLUGINS lets a third party's plugin of this name in."""
    allowed = config.get("HAL_PLUGINS")
    return not allowed or name in {part.strip() for part in allowed.split(",")}


_lock = threading.RLock()
_registry: Registry | None = None
_changed: list[Callable[[], None]] = []


def registry() -> Registry:
    """The registry, with all plugins loaded."""
    global _registry
    if _registry is None:
        with _lock:
            if _registry is None:
                loading = Registry()
                loading.load_entry_points()
                loading.load_path()
                loading.add_all_kernels()
                _registry = loading
    return _registry


def register(plugin: Any, name: str = "") -> None:
    """Add a plugin from code: a module or object with hooks, a `Backend`, or a backend's class.

    Raises:
        PluginError: it cannot be used; the message says why.
    """
    target = registry()
    before = len(target.problems)
    target.add(plugin, Source(name or getattr(plugin, "__name__", type(plugin).__name__), ""))
    target.add_all_kernels()
    changed()
    if len(target.problems) > before:
        problem = target.problems[-1]
        raise PluginError(f"{problem.plugin} cannot be registered: it {problem.message}")


def unregister(name: str) -> None:
    """Forget the backend called `name` that was registered in code. Its tensors stay usable."""
    target = registry()
    target.backends.pop(name, None)
    target.sources.pop(name, None)
    target._doubled.pop(name, None)
    changed()


def on_change(function: Callable[[], None]) -> None:
    """Call `function` when a backend, op or kernel was added after the start."""
    _changed.append(function)


def changed() -> None:
    """Say that a backend, op or kernel was added or taken away: cached decisions are forgotten."""
    _best_device.cache_clear()
    _named_device.cache_clear()
    for function in _changed:
        function()


def devices(name: str | None = None) -> list[Device]:
    """The devices that are available, of one backend or of all, those with the highest priority first.

    Raises:
        DeviceError: `name` is no backend.
    """
    target = registry()
    wanted = [target.backend(name)] if name else sorted(target.backends.values(), key=lambda b: (-b.priority, b.name))
    found: list[Device] = []
    for backend in wanted:
        try:
            found += backend.devices()
        except Exception:  # unavailable, or broken: `hal devices` says which and why
            continue
    return found


def device_count(name: str | None = None) -> int:
    """How many devices are available, of one backend or of all; 0 for a backend that is not there."""
    if name is not None and name not in registry().backends:
        return 0
    return len(devices(name))


def _allowed() -> list[str]:
    return [part.strip() for part in config.get("HAL_BACKEND").split(",") if part.strip()]


def default_device() -> Device:
    """Where tensors are created when nothing else is said: `with device:`, HAL_BACKEND, or the best available.

    Raises:
        DeviceError: HAL_BACKEND asks for a device that is not there.
    """
    entered = chosen()
    if entered is not None:
        return entered
    wanted = config.get("HAL_BACKEND")
    return _named_device(wanted.split(",")[0].strip(), "HAL_BACKEND=" + wanted) if wanted else _best_device()


def find_device(which: str | None) -> Device:
    """The device called `which` (`name`, `name:index`, `name:variant`), or the default device for None.

    Raises:
        DeviceError: no such device, or HAL_BACKEND does not allow it; the message says what would cure it.
    """
    if which is None:
        return default_device()
    found = _named_device(which, "")
    allowed = _allowed()
    if len(allowed) > 1 and found not in [_named_device(a, "HAL_BACKEND") for a in allowed]:
        raise DeviceError(f"device {which!r} is not allowed: HAL_BACKEND={config.get('HAL_BACKEND')} names only those")
    return found


@lru_cache(maxsize=1)
def _best_device() -> Device:
    for backend in sorted(registry().backends.values(), key=lambda b: (-b.priority, b.name)):
        try:
            found = backend.devices() if backend.priority >= 0 else []
        except Exception:  # the best *available*, quietly; asking for it by name says why not
            continue
        if found:
            return found[0]
    raise DeviceError(
        "no backend has a device; `hal devices -v` says why (is hal-runtime itself installed, not only on the path?)"
    )


@lru_cache(maxsize=256)
def _named_device(which: str, asked_by: str) -> Device:
    by = f"{asked_by}: " if asked_by else ""
    name, _, suffix = which.partition(":")
    try:
        backend = registry().backend(name)
    except DeviceError as error:
        raise DeviceError(f"{by}{error}") from None
    try:
        found = backend.devices()
    except Unavailable as error:
        cure = f"; {error.cure}" if error.cure else ""
        raise DeviceError(f"{by}device {which!r} was asked for, but {error.reason}{cure}") from None
    except Exception as error:
        raise DeviceError(f"{by}backend {name!r} failed to list its devices: {error!r}") from error
    if not found:
        raise DeviceError(
            f"{by}device {which!r} was asked for, but backend {name!r} found no device; `hal devices -v` shows more"
        )
    if not suffix:
        return found[0]
    for position, candidate in enumerate(found):
        if suffix in (str(candidate.suffix), str(position)):
            return candidate
    names = [str(d) for d in found]
    raise DeviceError(
        f"{by}there is no device {which!r}; backend {name!r} has {', '.join(names)}{config.did_you_mean(which, names)}"
    )

"""Finds and loads the oneDNN library, on first use. Without one there are no kernels, and `status` says why."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.metadata
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hal.registry import changed
from hal_onednn.api import RUNTIMES, Api
from hal_onednn.threads import brief_spinning, limit_in_child

VARIABLE = "HAL_ONEDNN"  # the library's path, or `0` for none
PACKAGES = ("onednn-cpu-gomp", "onednn-cpu-iomp", "onednn-cpu-tbb")  # wheels with the library in them
FILE = "libdnnl.so.3"
CURE = "pip install onednn-cpu-gomp==2023.2.0"
MAJOR = 3  # the version whose C interface this is


@dataclass(frozen=True)
class Status:
    """Whether there is a library, which one, and if there is none, why.

    Attributes:
        path: of the library that was loaded.
        version: the library's own.
        runtime: whose threads it uses.
        threads: how many.
        reason: why there is none; empty if there is one.
    """

    path: str = ""
    version: str = ""
    runtime: str = ""
    threads: int = 0
    reason: str = ""

    @property
    def available(self) -> bool:
        """Whether there is a library, and so kernels."""
        return not self.reason

    def __str__(self) -> str:
        return self.reason or f"oneDNN {self.version}, {self.threads} threads of {self.runtime}, from {self.path}"


def candidates() -> Iterator[str]:
    """Where the library may be, the likeliest first."""
    given = os.environ.get(VARIABLE, "").strip()
    if given:
        yield given
        return
    for package in PACKAGES:
        try:
            files = importlib.metadata.files(package) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        yield from (os.path.normpath(f.locate()) for f in files if f.name == FILE)
    yield str(Path(sys.prefix, "lib", FILE))
    system = ctypes.util.find_library("dnnl")
    if system:
        yield system


def _load(path: str) -> tuple[Api, Status]:
    """Load one library.

    Raises:
        OSError: it is not there, or cannot be loaded, or is no oneDNN that these kernels can use.
    """
    try:
        with brief_spinning():
            api = Api(ctypes.CDLL(path))
    except AttributeError as error:
        raise OSError(f"it is no oneDNN {MAJOR}: {error}") from error
    found = api.version()
    version = f"{found.major}.{found.minor}.{found.patch}"
    if found.major != MAJOR:
        raise OSError(f"it is oneDNN {version}, and {MAJOR}.x is needed")
    if found.cpu_runtime not in RUNTIMES:
        raise OSError(f"it was built for runtime {found.cpu_runtime:#x}, and one of {RUNTIMES} is needed")
    api.start()
    limit_in_child(api.threads)
    return api, Status(path, version, RUNTIMES[found.cpu_runtime], api.threads.most)


def _search() -> tuple[Api | None, Status]:
    if os.environ.get(VARIABLE, "").strip() == "0":
        return None, Status(reason=f"{VARIABLE}=0 turns oneDNN off")
    failures: list[str] = []
    for path in candidates():
        if os.sep in path and not Path(path).exists():
            failures.append(f"{path} is not there")
            continue
        try:
            return _load(path)
        except OSError as error:
            failures.append(f"{path} cannot be used: {error}")
    return None, Status(reason=f"there is no oneDNN library: {'; '.join(failures)}; {CURE}")


_lock = threading.Lock()
_found: tuple[Api | None, Status] | None = None


def _once() -> tuple[Api | None, Status]:
    global _found
    if _found is None:
        with _lock:
            if _found is None:
                _found = _search()
    return _found


def status() -> Status:
    """Whether there is a library, which one, and if there is none, why. Loads it."""
    return _once()[1]


_paused = False


def available() -> bool:
    """Whether there is a library, and it was not turned off. Loads it."""
    return not _paused and _once()[0] is not None


@contextmanager
def off() -> Iterator[None]:
    """Leave everything to the backend's own kernels inside the block, in all threads: to compare the two."""
    global _paused
    before, _paused = _paused, True
    changed()
    try:
        yield
    finally:
        _paused = before
        changed()


def api() -> Api:
    """The library's functions; only where it is `available`."""
    found = _once()[0]
    assert found is not None, "a kernel was asked for without a library"
    return found

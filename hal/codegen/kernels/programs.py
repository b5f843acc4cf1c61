"""Compiled programs: built once for a source, kept on disk by source, device and driver, and named when they fail."""

from __future__ import annotations

import hashlib
import os
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hal.codegen.loops import whole
from hal.plugin import DeviceError, cache_dir

if TYPE_CHECKING:
    from hal.codegen.dialect import Dialect


def key_of(identity: str, source: str) -> str:
    """The name of the file that the binary of a source is kept in, without `.bin`."""
    return hashlib.sha256(f"{identity}\n{source}".encode()).hexdigest()[:32]


class BuildError(Exception):
    """What a compiler said of a source that it refused."""


class Programs(ABC):
    """The programs of one device: `kernel(source, name)` compiles what was not met before.

    Attributes:
        name, title: of the device, for messages.
        dialect: its language.
        family: the folder of the cache, and the ending of files with sources.
        identity: what a binary holds for: device, driver, options.
        built: how many were compiled from source.
        loaded: how many came from the disk.
    """

    def __init__(self, name: str, title: str, dialect: Dialect, family: tuple[str, str], identity: str) -> None:
        self.name, self.title, self.dialect, self.family, self.identity = name, title, dialect, family, identity
        self.built = self.loaded = 0
        self._programs: dict[str, Any] = {}
        self._kernels: dict[tuple[str, str], Any] = {}
        self._lock = threading.RLock()

    @abstractmethod
    def build(self, source: str) -> tuple[Any, bytes | None]:
        """The program of a source, and what to keep of it on disk. Raises BuildError."""

    @abstractmethod
    def load(self, binary: bytes) -> Any:
        """The program that was kept, or None where it cannot be used."""

    @abstractmethod
    def function(self, program: Any, name: str) -> Any:
        """A kernel of a program, as `Runtime.launch` takes it."""

    def kernel(self, source: str, name: str, label: str = "") -> Any:
        """The kernel `name` of a source in the dialect's words, compiled where it was not met before.

        Raises:
            DeviceError: it does not compile; the source is in the file that the message names.
        """
        found = self._kernels.get((source, name))
        if found is None:
            with self._lock:
                program = self._programs.get(source)
                if program is None:
                    program = self._programs[source] = self._program(whole(self.dialect, source), label or name)
                found = self._kernels[source, name] = self.function(program, name)
        return found

    def folder(self) -> Path:
        """Where programs are kept on disk."""
        return cache_dir() / self.family[0]

    def _program(self, source: str, label: str) -> Any:
        key = key_of(self.identity, source)
        file = self.folder() / f"{key}.bin"
        if file.is_file():
            try:
                program = self.load(file.read_bytes())
            except OSError:
                program = None
            if program is not None:
                self.loaded += 1
                return program
        try:
            program, binary = self.build(source)
        except BuildError as error:
            raise self._failure(source, key, label, str(error)) from None
        self.built += 1
        if binary is not None:
            self._keep(binary, file)
        return program

    def _keep(self, binary: bytes, file: Path) -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
            part.write_bytes(binary)
            part.replace(file)  # at once, so that no other process reads half of it
        except OSError:  # a cache that cannot be written only costs time
            pass

    def _failure(self, source: str, key: str, label: str, said: str) -> DeviceError:
        file = self.folder() / f"failed-{key}.{self.family[1]}"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source)
            saved = f"its source is in {file}"
        except OSError as problem:
            saved = f"its source could not be saved ({problem})"
        log = [line for line in said.splitlines() if "error" in line.lower()] or said.splitlines()
        return DeviceError(
            f"the kernel of {label} does not compile for {self.name} ({self.title}): "
            f"{' | '.join(log[:3])}; {saved}; report it with that file and the output of `hal devices -v`"
        )

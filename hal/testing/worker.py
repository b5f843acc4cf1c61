"""A process in which cases run, so that one which brings its process down costs only itself.

The parent writes requests to the worker's standard input and reads answers from its standard output, each a pickle
with its length before it. The worker gives its own standard output away first: what a library prints goes to stderr.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from typing import IO, Any

from hal.errors import HalError, PluginError
from hal.testing.case import Outcome
from hal.testing.running import Listed, Opened, Runner

_LENGTH = struct.Struct("!I")
_START = "import sys; sys.path[:] = {path!r}; from hal.testing.worker import main; main()"
OPENING = 300.0  # seconds that a device may take to start, or a level to list its cases
TAIL = 1500  # characters of what a dying worker said that are kept


class WorkerDied(Exception):
    """The worker ended, or was ended because it gave no answer; the message says how."""


def send(stream: IO[bytes], message: Any) -> None:
    """Write one message."""
    data = pickle.dumps(message)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Read one message; EOFError at the end."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    return pickle.loads(stream.read(_LENGTH.unpack(head)[0]))


class Worker:
    """The parent's end: the same three requests as a `Runner`, answered by another process."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the worker
        variables = {**os.environ, "HAL_FALLBACK": "allow", "HAL_COPIES": "allow"}
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-c", _START.format(path=sys.path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, env=variables,
        )  # fmt: skip
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            while True:
                self._answers.put(receive(self._process.stdout))
        except (EOFError, OSError, pickle.UnpicklingError):
            self._answers.put(EOFError)

    def _ask(self, *request: Any) -> None:
        assert self._process.stdin is not None
        try:
            send(self._process.stdin, request)
        except OSError:
            raise WorkerDied(self._how_it_ended()) from None

    def _answer(self, timeout: float) -> Any:
        try:
            answer = self._answers.get(timeout=timeout)
        except queue.Empty:
            self._process.kill()
            self._process.wait()
            raise WorkerDied(f"gave no answer for {timeout:g} seconds, and was ended") from None
        if answer is EOFError:
            raise WorkerDied(self._how_it_ended())
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip()
        names = {s.value: s.name for s in signal.Signals}
        how = f"died of {names.get(-code, f'signal {-code}')}" if code < 0 else f"exited with status {code}"
        return f"the process {how}" + (f"; it said:\n{said[-TAIL:]}" if said else "")

    def open(self, device: str, register: Iterable[str] = ()) -> Opened:
        """See `Runner.open`."""
        self._ask("open", device, list(register))
        opened: Opened = self._answer(OPENING)
        return opened

    def list(self, level: str) -> list[Listed]:
        """See `Runner.list`."""
        self._ask("list", level)
        listed: list[Listed] = self._answer(OPENING)
        return listed

    def run(self, ids: Iterable[str]) -> Iterator[tuple[str, Outcome, float]]:
        """See `Runner.run`. When the worker dies, the case at hand is the first one that was not yielded."""
        wanted = list(ids)
        self._ask("run", wanted)
        for _ in wanted:
            yield self._answer(self._timeout)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        deadline = time.monotonic() + 1
        while self._answers.empty() and time.monotonic() < deadline:  # the reading thread sees the end
            time.sleep(0.001)
        self._process.stdout.close()
        self._said.close()


def main() -> None:
    """The worker's end: answer requests until there are no more."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what is printed goes with the errors
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    runner = Runner()
    while True:
        try:
            what, *arguments = receive(requests)
        except EOFError:
            answers.close()
            return
        if what == "run":
            for answer in runner.run(*arguments):
                send(answers, answer)
            continue
        try:
            send(answers, getattr(runner, what)(*arguments))
        except Exception as error:  # a stranger's code, whose errors may not survive a pickle
            known = isinstance(error, HalError)
            send(answers, type(error)(str(error)) if known else PluginError(f"{type(error).__name__}: {error}"))

"""Work that a fake device does later: on a thread of its own, in any order that keeps what tasks read and write."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable

PATIENCE = 0.01  # seconds in which nobody adds or asks, after which the work begins by itself
FULL = 32  # tasks that may wait before the work begins by itself


class Task:
    """A piece of work, and the tasks that must be done before it."""

    __slots__ = ("before", "done", "error", "work")

    def __init__(self, work: Callable[[], None], before: set[Task]) -> None:
        self.work: Callable[[], None] | None = work
        self.before = before
        self.done = False
        self.error: BaseException | None = None

    def run(self) -> None:
        """Do the work, unless something that it builds on has failed: then it has failed in the same way."""
        assert self.work is not None
        failed = [task.error for task in self.before if task.error is not None]
        try:
            if failed:
                self.error = failed[0]
            else:
                self.work()
        except BaseException as error:  # told to whoever waits for the result
            self.error = error.with_traceback(None)  # whose frames would hold on to memory
        self.work, self.before = None, set()  # what the work held on to is freed here, not when somebody asks
        self.done = True


class Trail:
    """Who wrote a piece of memory last, and who has read it since: what orders the tasks that touch it."""

    __slots__ = ("readers", "writer")

    def __init__(self) -> None:
        self.writer: Task | None = None
        self.readers: list[Task] = []


class Later:
    """A queue whose tasks run on a thread of its own, in a random order that respects what they read and write.

    Nothing runs before somebody waits, many tasks have gathered, or some time has passed: so that a program which
    does not wait, where it must, reads what is not there yet.

    Args:
        seed: of the order.
    """

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._waiting: list[Task] = []
        self._failed: list[BaseException] = []  # that nobody was told about
        self._asked = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, work: Callable[[], None], reads: Iterable[Trail], writes: Iterable[Trail]) -> None:
        """Put work on the queue: it waits for whoever writes what it reads, and uses what it writes."""
        with self._changed:
            reads, writes = list(reads), list(writes)
            before = {t.writer for t in (*reads, *writes)} | {reader for t in writes for reader in t.readers}
            task = Task(work, {b for b in before if b is not None and (not b.done or b.error is not None)})
            for trail in reads:
                trail.readers = [*(r for r in trail.readers if not r.done), task]
            for trail in writes:
                trail.writer, trail.readers = task, []
            self._waiting.append(task)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="fake device", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def wait(self, trail: Trail) -> None:
        """Wait until what was last written is there; raises what went wrong on the way to it."""
        task = trail.writer
        if task is None:
            return
        self._until(lambda: task.done)
        if task.error is not None:
            self._failed = [error for error in self._failed if error is not task.error]
            raise task.error

    def idle(self) -> None:
        """Wait until everything is done, whatever went wrong."""
        self._until(lambda: not self._waiting)

    def finish(self) -> None:
        """Wait until everything is done; raises the first thing that went wrong and that nobody was told about."""
        self._until(lambda: not self._waiting)
        with self._changed:
            failed, self._failed = self._failed, []
        if failed:
            raise failed[0]

    def _until(self, there: Callable[[], bool]) -> None:
        with self._changed:
            self._asked += 1
            self._changed.notify_all()
            try:
                self._changed.wait_for(there)
            finally:
                self._asked -= 1

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._asked and len(self._waiting) < FULL and self._changed.wait(PATIENCE):
                    continue  # somebody added or asked: look again
                if not self._waiting:
                    self._thread = None
                    return
                ready = [task for task in self._waiting if all(b.done for b in task.before)]
                task = self._random.choice(ready)
            task.run()
            with self._changed:
                self._waiting.remove(task)
                if task.error is not None and task.error not in self._failed:
                    self._failed.append(task.error)
                self._changed.notify_all()
            del task

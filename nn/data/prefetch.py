"""Computes a sequence of results ahead of time in threads, and hands them out in the order of their tasks."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Generic, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

PATIENCE = 2.0  # seconds that closing waits for threads that are in the middle of a task


class Crew:
    """A few threads that work off one queue until they are closed.

    They are daemons: a task that never returns cannot keep the interpreter from exiting.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name} {number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, task: Callable[[], None]) -> None:
        """Have the next free thread run the task, which must not raise."""
        self._tasks.put(task)

    def close(self) -> None:
        """End the threads: what waits is dropped, what runs is waited for, though not for ever."""
        self._closed.set()
        with contextlib.suppress(queue.Empty):
            while True:
                self._tasks.get_nowait()
        for _ in self._threads:
            self._tasks.put(None)
        end = time.monotonic() + PATIENCE
        for thread in self._threads:
            # The garbage collector may close a crew from any thread, one of its own included.
            if thread is not threading.current_thread():
                thread.join(max(0.0, end - time.monotonic()))

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None and not self._closed.is_set():
            task()
            del task  # else the last result would live on in an idle thread


class OrderedMap(Generic[Task, Result]):
    """`map(function, tasks)` with up to `ahead` results computed in advance by `threads` threads.

    The results come in the order of the tasks. The tasks are drawn from their iterator by whoever asks for results,
    never by a worker. An error of `function` is raised where its result would have come, and ends the iteration.
    With 0 threads each result is computed when it is asked for. The threads end with the last result, with the first
    error, when `close` is called, and when the iterator is dropped.
    """

    def __init__(
        self, function: Callable[[Task], Result], tasks: Iterable[Task], *, threads: int, ahead: int, name: str
    ) -> None:
        self._function = function
        self._tasks = iter(tasks)
        self._pending: deque[Future[Result]] = deque()
        self._ahead = ahead
        self._crew = Crew(threads, name) if threads else None
        self._open = True
        # The crew must not know this object, or it would never be dropped while a thread lives.
        self._dismiss = weakref.finalize(self, self._crew.close) if self._crew else None
        self._fill()

    def __iter__(self) -> Iterator[Result]:
        return self

    def __next__(self) -> Result:
        if not self._open:
            raise StopIteration
        try:
            if self._crew is None:
                return _call(self._function, next(self._tasks))
            if not self._pending:
                raise StopIteration
            future = self._pending.popleft()
            self._fill()
            return future.result()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the iteration and its threads now."""
        self._open = False
        self._pending.clear()
        if self._dismiss is not None:
            self._dismiss()

    def _fill(self) -> None:
        """Hand out tasks until enough are under way."""
        if self._crew is None:
            return
        while len(self._pending) < self._ahead:
            future: Future[Result] = Future()
            try:
                task = next(self._tasks)
            except StopIteration:
                return
            except Exception as error:
                # Without threads this error would come after the results before it; so it does with them.
                future.set_exception(error)
                self._pending.append(future)
                self._tasks = iter(())
                return
            self._pending.append(future)
            self._crew.submit(_job(self._function, task, future))


def _job(function: Callable[[Task], Result], task: Task, future: Future[Result]) -> Callable[[], None]:
    def run() -> None:
        try:
            future.set_result(_call(function, task))
        except BaseException as error:
            future.set_exception(error)

    return run


def _call(function: Callable[[Task], Result], task: Task) -> Result:
    try:
        return function(task)
    except StopIteration as error:
        # In an iterator it would end the loop as if there were nothing more.
        raise RuntimeError("StopIteration was raised while a batch was being read") from error

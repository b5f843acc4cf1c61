"""A data set that is read in an order of its own, and the threads that read it."""

import threading
import time
from collections.abc import Callable

from nn.data import Dataset


class Slow(Dataset[int]):
    """Items take a different time each, so that threads finish out of order; who read which is kept."""

    def __init__(self, size: int = 20, fail: dict[int, BaseException] | None = None) -> None:
        self.size = size
        self.fail = fail or {}
        self.readers: dict[int, str] = {}

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        time.sleep((index * 7 % 5) / 2000)
        self.readers[index] = threading.current_thread().name
        if index in self.fail:
            raise self.fail[index]
        return index * 10


before: set[threading.Thread] = set()  # a test that failed keeps its loop, and so its threads: only it should fail


def workers() -> list[str]:
    """The threads of this test's loaders that are alive."""
    alive = [thread for thread in threading.enumerate() if thread not in before]
    return [thread.name for thread in alive if thread.name.startswith("DataLoader")]


def wait_until(condition: Callable[[], bool]) -> None:
    """Give other threads the time to bring something about."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)

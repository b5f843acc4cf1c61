"""Threads of loaders: they read ahead as far as was asked, end with the pass, and hold up nobody."""

import contextlib
import gc
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from slow_dataset import Slow, wait_until, workers

from nn.data import DataLoader
from nn.data.prefetch import OrderedMap

pytestmark = pytest.mark.usefixtures("no_thread_left")


def test_threads_run_while_a_pass_does_and_end_with_it() -> None:
    batches = iter(DataLoader(Slow(6), num_workers=3))
    next(batches)
    assert workers() == ["DataLoader worker 0", "DataLoader worker 1", "DataLoader worker 2"]
    assert len(list(batches)) == 5
    assert not workers()


def leave_by_break(loader: Any) -> None:
    for _ in loader:
        break


def leave_by_error(loader: Any) -> None:
    with contextlib.suppress(ZeroDivisionError):
        for _ in loader:
            raise ZeroDivisionError


def leave_unread(loader: Any) -> None:
    iter(loader)


def leave_in_a_cycle(loader: Any) -> None:
    cycle: list[Any] = [iter(loader)]
    cycle.append(cycle)
    del cycle
    gc.collect()


def leave_closed(loader: Any) -> None:
    batches = iter(loader)
    next(batches)
    batches.close()
    assert not workers()
    assert list(batches) == []


@pytest.mark.parametrize(
    "leave", [leave_by_break, leave_by_error, leave_unread, leave_in_a_cycle, leave_closed], ids=lambda f: f.__name__
)
def test_an_abandoned_pass_takes_its_threads_along(leave: Callable[[Any], None]) -> None:
    for _ in range(3):
        leave(DataLoader(Slow(100), num_workers=2))
        assert not workers()


def test_no_more_is_read_ahead_than_was_asked_for() -> None:
    dataset = Slow(50)
    batches = iter(DataLoader(dataset, 2, num_workers=2, prefetch_factor=3))
    wait_until(lambda: len(dataset.readers) == 2 * 2 * 3)
    next(batches)
    wait_until(lambda: len(dataset.readers) == 2 * (2 * 3 + 1))
    time.sleep(0.05)
    assert len(dataset.readers) == 2 * (2 * 3 + 1)


def test_reading_goes_on_while_the_loop_works() -> None:
    dataset = Slow(8)
    for number, _ in enumerate(DataLoader(dataset, num_workers=2)):
        wait_until(lambda number=number: number + 1 in dataset.readers or number == 7)


def test_an_idle_thread_does_not_keep_the_last_batch_alive() -> None:
    results = OrderedMap(lambda number: np.full(3, number), range(2), threads=1, ahead=1, name="DataLoader test")
    last = weakref.ref([next(results), next(results)][1])
    wait_until(lambda: last() is None)
    assert workers()
    assert list(results) == []


def test_a_thread_that_collects_the_pass_does_not_wait_for_itself() -> None:
    """The garbage collector may run in a worker, and then closes its own crew."""
    errors: list[Any] = []
    hold: list[Any] = []

    def task(number: int) -> int:
        if number == 1:
            while not hold:
                time.sleep(0.001)
            hold.clear()
        return number

    results = OrderedMap(task, range(4), threads=2, ahead=4, name="DataLoader test")
    before, sys.unraisablehook = sys.unraisablehook, errors.append
    try:
        hold.append(results)
        del results
        wait_until(lambda: not workers())
    finally:
        sys.unraisablehook = before
    assert not errors


PROGRAM = """
import time
from nn.data import DataLoader

class Stuck:
    def __len__(self):
        return 100
    def __getitem__(self, index):
        if index >= {stuck}:
            time.sleep(60)
        return index

batches = iter(DataLoader(Stuck(), num_workers=2))
print(next(batches).item(), flush=True)
{end}
"""


@pytest.mark.parametrize(
    ("stuck", "end", "code"),
    [(100, "", 0), (100, "raise SystemExit(3)", 3), (1, "", 0)],
    ids=["idle threads", "exit code", "a read that never ends"],
)
def test_the_interpreter_exits_while_a_pass_is_open(stuck: int, end: str, code: int) -> None:
    start = time.perf_counter()
    program = PROGRAM.format(stuck=stuck, end=end)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (code, "0\n", "")
    assert time.perf_counter() - start < 20

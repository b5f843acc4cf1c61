"""Worker processes of a loader: the same batches as without, errors with their item, and processes that die."""

import os
from typing import Any

import numpy as np
import pytest

from hal.errors import DataError
from nn.data import DataLoader, Dataset, transforms

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]


class Rows(Dataset[Any]):
    """Items that tell who read them, and fail where they are told to."""

    def __init__(self, fail: str = "") -> None:
        self.fail = fail
        self.crop = transforms.RandomCrop(4, 2)

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: Any) -> Any:
        if index == 7 and self.fail == "raise":
            raise KeyError("seven")
        if index == 7 and self.fail == "die":
            os._exit(3)
        image = np.arange(16, dtype=np.float32).reshape(1, 4, 4) + index
        return self.crop(image), os.getpid()


def loader(fail: str = "", **more: Any) -> DataLoader:
    return DataLoader(Rows(fail), batch_size=3, shuffle=True, generator=5, **more)


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_processes_read_the_same_batches(method: str) -> None:
    alone = [[x.numpy() for x, _ in pass_] for pass_ in (loader(), loader())][:1]
    with_processes = loader(num_workers=2, multiprocessing_context=method)
    readers = set()
    for number in range(2):
        found = list(with_processes)
        readers |= {int(n) for _, pids in found for n in pids.tolist()}
        if number == 0:
            np.testing.assert_array_equal(np.concatenate([x.numpy() for x, _ in found]), np.concatenate(alone[0]))
    assert os.getpid() not in readers
    assert 1 <= len(readers) <= 2  # kept from pass to pass
    workers = with_processes._workers
    assert workers is not None
    workers.close()


def test_an_error_comes_with_its_item() -> None:
    with pytest.raises(KeyError, match="seven") as raised:
        list(loader("raise", num_workers=1, multiprocessing_context="fork"))
    assert "DataLoader was reading item 7 of Rows" in raised.value.__notes__


def test_a_process_that_dies_is_told_from_an_error() -> None:
    with pytest.raises(DataError, match=r"DataLoader worker \d died with exit code 3 while it read the items \["):
        list(loader("die", num_workers=2, multiprocessing_context="fork"))


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="multiprocessing_context= one of"):
        loader(num_workers=0, multiprocessing_context="spawn")
    with pytest.raises(ValueError, match="got 'threads' and 1"):
        loader(num_workers=1, multiprocessing_context="threads")


class Named(Dataset[str]):
    """Items that are what the worker was told to be called."""

    name = "nobody"

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: Any) -> str:
        return self.name


def call_by_number(number: int) -> None:
    Named.name = f"worker {number}"


def test_a_worker_begins_with_what_it_is_told() -> None:
    loader = DataLoader(Named(), 3, num_workers=1, multiprocessing_context="fork", worker_init_fn=call_by_number)
    assert list(loader) == [["worker 0"] * 3]
    assert Named.name == "nobody"

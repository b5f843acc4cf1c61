"""What a loader says of errors: in the data set, in what puts batches together, and in how it was made."""

import traceback
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from slow_dataset import Slow, workers

from hal.errors import DTypeError
from nn.data import DataLoader, TensorDataset

WORKERS = [0, 1, 3]
pytestmark = pytest.mark.usefixtures("no_thread_left")


def consume(loader: Any) -> tuple[list[Any], BaseException | None]:
    """The batches of a pass up to its error, and the error."""
    seen = []
    try:
        for batch in loader:
            seen.append(batch.tolist())
    except Exception as error:
        return seen, error
    return seen, None


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"batch_size": 0}, ValueError, "a batch size must be a positive integer, got 0"),
        ({"num_workers": -1}, ValueError, "num_workers to be an integer of at least 0, got -1"),
        ({"num_workers": 1.5}, ValueError, r"num_workers to be an integer of at least 0, got 1\.5"),
        ({"prefetch_factor": 0}, ValueError, "prefetch_factor to be an integer of at least 1, got 0"),
        ({"sampler": [0], "shuffle": True}, ValueError, "from sampler or from shuffle, got both"),
        ({"batch_sampler": [[0]], "batch_size": 2}, ValueError, "leave out batch_size, shuffle, sampler and drop_last"),
        ({"batch_sampler": [[0]], "drop_last": True}, ValueError, "decides on the batches alone"),
        ({"shuffle": True, "generator": -3}, ValueError, r"a seed from 0 to 2\*\*64 - 1, got -3"),
    ],
)
def test_settings_that_mean_nothing(settings: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        DataLoader(range(3), **settings)


def test_a_loader_of_unknown_length_says_so() -> None:
    with pytest.raises(TypeError, match="generator has no length"):
        len(DataLoader(range(3), sampler=(i for i in range(3))))
    with pytest.raises(TypeError, match="generator has no length, so neither has its DataLoader"):
        len(DataLoader(range(3), batch_sampler=([i] for i in range(3))))


@pytest.mark.parametrize("num_workers", WORKERS)
def test_an_error_in_the_dataset_is_raised_where_its_batch_would_have_come(num_workers: int) -> None:
    dataset = Slow(20, fail={9: OSError("bad sector")})

    seen, error = consume(DataLoader(dataset, 2, num_workers=num_workers))

    assert seen == [[0, 10], [20, 30], [40, 50], [60, 70]]
    assert isinstance(error, OSError)
    assert str(error) == "bad sector"
    assert error.__notes__ == ["DataLoader was reading item 9 of Slow"]
    assert "__getitem__" in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_ends_the_pass(num_workers: int) -> None:
    batches = iter(DataLoader(Slow(20, fail={2: ValueError("no")}), num_workers=num_workers))
    assert [next(batches).item(), next(batches).item()] == [0, 10]
    with pytest.raises(ValueError, match="no"):
        next(batches)
    assert not workers()
    assert list(batches) == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_stop_iteration_in_a_dataset_does_not_end_the_loop_in_silence(num_workers: int) -> None:
    with pytest.raises(RuntimeError, match="StopIteration was raised while a batch was being read") as caught:
        list(DataLoader(Slow(4, fail={1: StopIteration()}), num_workers=num_workers))
    assert caught.value.__cause__.__notes__ == ["DataLoader was reading item 1 of Slow"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_index_out_of_range_is_named(num_workers: int) -> None:
    dataset = TensorDataset(np.arange(3))
    with pytest.raises(IndexError, match="TensorDataset has 3 items, got index 7") as caught:
        list(DataLoader(dataset, 2, sampler=[0, 7], num_workers=num_workers))
    assert caught.value.__notes__ == ["DataLoader was reading item 7 of TensorDataset"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_in_collate_names_the_batch(num_workers: int) -> None:
    ragged = [np.zeros(size, np.float32) for size in (2, 2, 2, 3)]
    with pytest.raises(ValueError, match=r"got \(2,\) in item 0 and \(3,\) in item 1 of the batch") as caught:
        list(DataLoader(ragged, 2, num_workers=num_workers))
    assert caught.value.__notes__ == ["DataLoader was making a batch of the items [2, 3] of list"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_cannot_become_a_tensor_ends_the_pass(num_workers: int) -> None:
    batches = iter(DataLoader([np.array("a"), np.array("b"), np.array("c")], num_workers=num_workers))
    with pytest.raises(DTypeError, match="<U1"):
        next(batches)
    assert not workers()
    assert list(batches) == []


def test_an_error_of_a_whole_batch_is_told_with_its_items() -> None:
    class Broken(TensorDataset):
        def read_batch(self, indices: Any) -> Any:
            raise MemoryError("too large")

    with pytest.raises(MemoryError, match="too large") as caught:
        next(iter(DataLoader(Broken(np.arange(20)), 10)))
    assert caught.value.__notes__ == ["DataLoader was reading the items [0, 1, 2, 3, 4, 5, 6, 7, ...] of Broken"]


@pytest.mark.parametrize("num_workers", WORKERS)
def test_an_error_in_a_sampler_comes_after_the_batches_before_it(num_workers: int) -> None:
    def indices() -> Iterator[int]:
        yield 0
        yield 1
        raise LookupError("no more")

    seen, error = consume(DataLoader(range(5), sampler=indices(), num_workers=num_workers))

    assert seen == [[0], [1]]
    assert isinstance(error, LookupError)

"""Loaders: batches in order whatever the threads do, on any device, continued where a run stopped."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from slow_dataset import Slow, wait_until

import hal
from hal.errors import StateError
from hal.testing.fake import Fake
from nn.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    Digits,
    IterableDataset,
    RandomSampler,
    Subset,
    TensorDataset,
)

WORKERS = [0, 1, 3]
pytestmark = pytest.mark.usefixtures("no_thread_left")


# --- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", WORKERS)
def test_batches_come_in_order_whatever_the_threads_do(num_workers: int) -> None:
    dataset = Slow(11)

    batches = [batch.tolist() for batch in DataLoader(dataset, 4, num_workers=num_workers)]

    assert batches == [[0, 10, 20, 30], [40, 50, 60, 70], [80, 90, 100]]
    assert len(set(dataset.readers.values())) == max(1, num_workers)
    assert ("MainThread" in dataset.readers.values()) == (num_workers == 0)


def shuffled(dataset: Any, num_workers: int, **settings: Any) -> list[Any]:
    """Three passes over a dataset."""
    loader = DataLoader(dataset, 8, shuffle=True, generator=5, num_workers=num_workers, **settings)
    return [[part.tolist() for part in batch] for _ in range(3) for batch in loader]


@pytest.mark.parametrize("num_workers", WORKERS[1:])
@pytest.mark.parametrize(
    "dataset",
    [Digits(train=False), Digits(train=False, transform=lambda image: image * 2), Subset(Digits(), range(0, 300, 7))],
    ids=["at once", "one by one", "subset"],
)
def test_shuffling_does_not_depend_on_the_number_of_workers(dataset: Any, num_workers: int) -> None:
    assert shuffled(dataset, num_workers, prefetch_factor=3) == shuffled(dataset, 0)


def test_a_batch_read_at_once_equals_one_made_of_items() -> None:
    digits = Digits(train=False)

    at_once = next(iter(DataLoader(digits, 50)))
    by_item = next(iter(DataLoader(Digits(train=False, target_transform=int), 50)))

    assert isinstance(at_once, list)
    for one, other in zip(at_once, by_item, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_array_equal(one.cpu().numpy(), other.cpu().numpy())


def test_each_pass_has_its_own_order() -> None:
    loader = DataLoader(range(40), 40, shuffle=True, generator=0)
    first, second = next(iter(loader)).tolist(), next(iter(loader)).tolist()
    assert first != second
    assert sorted(first) == sorted(second) == list(range(40))


def test_manual_seed_decides_without_a_generator() -> None:
    def order() -> list[int]:
        hal.manual_seed(3)
        return [item for batch in DataLoader(range(30), 4, shuffle=True) for item in batch.tolist()]

    assert order() == order()


def test_two_passes_can_run_side_by_side() -> None:
    loader = DataLoader(range(12), 3, num_workers=2)
    pairs = [(one.tolist(), two.tolist()) for one, two in zip(loader, loader, strict=True)]
    assert pairs == [(batch, batch) for batch in ([0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11])]


@pytest.mark.parametrize(
    ("settings", "batches"),
    [
        ({"batch_size": 2}, [[0, 1], [2, 3], [4]]),
        ({"batch_size": 2, "drop_last": True}, [[0, 1], [2, 3]]),
        ({"batch_size": 9, "drop_last": True}, []),
        ({"batch_size": 2, "sampler": [4, 0, 4]}, [[4, 0], [4]]),
        ({"batch_sampler": [[3], [], [1, 2]], "collate_fn": list}, [[3], [], [1, 2]]),
        ({"batch_sampler": BatchSampler(range(3), 2)}, [[0, 1], [2]]),
    ],
)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_samplers_and_sizes(settings: dict[str, Any], batches: list[list[int]], num_workers: int) -> None:
    loader = DataLoader(range(5), num_workers=num_workers, **settings)
    assert len(loader) == len(batches)
    assert [batch if isinstance(batch, list) else batch.tolist() for batch in loader] == batches


class Stream(IterableDataset[int]):
    """Numbers, as many as are asked for."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(5))


@pytest.mark.parametrize("num_workers", WORKERS)
def test_a_stream_is_read_as_it_comes(num_workers: int) -> None:
    loader = DataLoader(Stream(), 2, num_workers=num_workers)
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3], [4]] == [batch.tolist() for batch in loader]
    whole = DataLoader(Stream(), 2, num_workers=num_workers, drop_last=True, collate_fn=sum)
    assert list(whole) == [1, 5]
    with pytest.raises(TypeError, match="no length"):
        len(loader)
    with pytest.raises(ValueError, match="as it comes"):
        DataLoader(Stream(), 2, shuffle=True)


def test_datasets_one_after_the_other() -> None:
    digits = Digits(train=False)
    both = Subset(digits, [3, 1]) + Subset(digits, [2])
    assert len(both) == 3
    assert [int(label) for _, label in both] == [int(digits[i][1]) for i in (3, 1, 2)]
    assert int(both[-1][1]) == int(digits[2][1])
    with pytest.raises(IndexError, match="ConcatDataset has 3 items, got index 3"):
        both[3]
    with pytest.raises(ValueError, match="at least one"):
        ConcatDataset([])


def test_what_collate_fn_makes_is_passed_on_as_it_is() -> None:
    loader = DataLoader(
        [1, 2, 3], 2, collate_fn=lambda items: {"sum": sum(items), "array": np.array(items)}, num_workers=1
    )
    first, second = loader
    assert (first["sum"], second["sum"]) == (3, 3)
    assert isinstance(first["array"], np.ndarray)


def test_a_batch_shares_no_memory_with_the_dataset() -> None:
    features = np.zeros((4, 2), np.float32)
    for (batch,) in DataLoader(TensorDataset(features), 4):
        batch.fill_(1.0)
    assert not features.any()


# --- devices ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def far() -> Iterator[hal.Device]:
    """A device that is not the default one."""
    with Fake("far").registered():
        yield hal.device("far")


def on(device: hal.Device, dataset: Any, /, **settings: Any) -> list[bool]:
    """Whether each tensor of each batch is on the device."""
    return [part.device is device for batch in DataLoader(dataset, 2, **settings) for part in batch]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_put_on_the_device(far: hal.Device, num_workers: int) -> None:
    arrays, tensors = TensorDataset(np.zeros((4, 2), np.float32)), TensorDataset(hal.tensor([1, 2, 3, 4]))
    digits = Subset(Digits(transform=lambda image: image + 1), range(4))
    for dataset in (arrays, tensors, digits):
        assert all(on(far, dataset, device="far", num_workers=num_workers))
        assert all(on(far, dataset, device=far, num_workers=num_workers, collate_fn=lambda items: items[0][:1]))
        assert not any(on(far, dataset, num_workers=num_workers))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_without_a_device_arrays_go_to_the_default_one_and_tensors_stay(far: hal.Device, num_workers: int) -> None:
    class Made(Dataset[Any]):
        """Items that are made where the loop would make them."""

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> tuple[Any, int]:
            return hal.tensor([1.0, 2.0]), index

    here = TensorDataset(hal.tensor([1, 2, 3, 4]))
    there = TensorDataset(hal.tensor([1, 2, 3, 4], device="far"))
    assert all(on(far, there, num_workers=num_workers))
    with far:
        assert all(on(far, TensorDataset(np.zeros((4, 2), np.float32)), num_workers=num_workers))
        assert all(on(far, Made(), num_workers=num_workers))
        assert not any(on(far, here, num_workers=num_workers))


class Counting(Fake):
    """A device that is slow to reach, and knows which threads have copied to it."""

    def __init__(self) -> None:
        super().__init__("slow", latency=0.002, bandwidth=1e9)
        self.copied_by: list[str] = []

    def upload(self, array: Any, device: hal.Device) -> Any:
        buffer = super().upload(array, device)
        self.copied_by.append(threading.current_thread().name)
        return buffer


@pytest.mark.parametrize("collate_fn", [None, lambda items: hal.stack([x for (x,) in items])])
def test_the_loop_never_waits_for_a_copy(collate_fn: Any) -> None:
    device = Counting()
    with device.registered():
        dataset = TensorDataset(np.zeros((12, 2), np.float32))
        loader = DataLoader(dataset, 2, device="slow", num_workers=1, collate_fn=collate_fn, prefetch_factor=2)
        for number, _ in enumerate(loader):  # the copy of the next batch ends without the loop asking for that batch
            wait_until(lambda number=number: len(device.copied_by) >= min(6, number + 2))
    assert device.copied_by == ["DataLoader worker 0"] * 6


def test_a_batch_was_placed_in_the_line_of_the_loop(far: hal.Device) -> None:
    (batch,) = next(iter(DataLoader(TensorDataset(np.zeros((4, 2), np.float32)), 2, device=far, num_workers=1)))
    with hal.copies("error"), pytest.raises(hal.errors.CopyError, match=r"test_data_loader\.py"):
        batch + hal.ones(2, device="cpu")


def test_a_batch_of_rows_on_a_device_is_right(far: hal.Device) -> None:
    dataset = TensorDataset(hal.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], device=far))
    batches = [batch[0].tolist() for batch in DataLoader(dataset, 2, sampler=[2, 0, -1])]
    assert batches == [[[5.0, 6.0], [1.0, 2.0]], [[5.0, 6.0]]]


# --- continuing a run -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("generator", [None, 17])
def test_a_restored_loader_continues_with_the_same_batches(generator: int | None, num_workers: int) -> None:
    def passes(loader: Any, count: int) -> list[list[int]]:
        return [[item for batch in loader for item in batch.tolist()] for _ in range(count)]

    whole = DataLoader(range(23), 5, shuffle=True, generator=generator, num_workers=num_workers)
    passes(whole, 2)
    state = whole.state_dict()
    rest = passes(whole, 2)

    resumed = DataLoader(range(23), 5, shuffle=True, generator=generator)
    resumed.load_state_dict(state)

    assert state == {"seed": state["seed"], "epoch": 2}
    assert passes(resumed, 2) == rest


def test_a_loader_without_shuffling_has_no_state() -> None:
    loader = DataLoader(range(4))
    assert loader.state_dict() == {}
    loader.load_state_dict({})
    with pytest.raises(StateError, match=r"always reads in the same order, got a state with \['epoch', 'seed'\]"):
        loader.load_state_dict({"seed": 1, "epoch": 2})


def test_the_state_of_a_sampler_in_a_batch_sampler_is_kept_too() -> None:
    loader = DataLoader(range(9), batch_sampler=BatchSampler(RandomSampler(range(9), generator=4), 3))
    list(loader)
    assert loader.state_dict() == {"seed": 4, "epoch": 1}

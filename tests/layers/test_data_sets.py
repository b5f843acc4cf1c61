"""Datasets that hold tensors, parts of datasets, samplers, and how a batch is made of items."""

from typing import Any, NamedTuple

import numpy as np
import pytest

import hal
from hal.errors import ShapeError, StateError
from nn.data import (
    BatchSampler,
    Dataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
    random_split,
)
from nn.data.dataset import read_batch


class Point(NamedTuple):
    x: Any
    y: Any


# --- datasets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [np.asarray, hal.tensor], ids=["arrays", "tensors"])
def test_a_tensor_dataset_gives_the_rows_of_its_tensors(wrap: Any) -> None:
    features, labels = np.arange(6, dtype=np.float32).reshape(3, 2), np.array([7, 8, 9])

    dataset = TensorDataset(wrap(features), wrap(labels))

    x, y = dataset[-1]
    assert len(dataset) == 3
    assert (x.tolist(), y.item()) == ([4.0, 5.0], 9)
    assert (x.dtype, y.dtype) == (hal.float32, hal.int64)
    with pytest.raises(IndexError, match=r"TensorDataset has 3 items, got index 3"):
        dataset[3]


@pytest.mark.parametrize("wrap", [np.asarray, hal.tensor], ids=["arrays", "tensors"])
def test_a_tensor_dataset_answers_a_whole_batch_as_it_would_item_by_item(wrap: Any) -> None:
    dataset = TensorDataset(wrap(np.arange(12, dtype=np.float32).reshape(4, 3)), wrap(np.arange(4)))

    for indices in ([3, 0, 3], [-1], []):
        batch = dataset.read_batch(np.array(indices, np.int64))
        assert [part.tolist() for part in batch] == [
            [dataset[i][0].tolist() for i in indices],
            [dataset[i][1].item() for i in indices],
        ]
    with pytest.raises(IndexError, match="4 items, got index 4"):
        dataset.read_batch(np.array([0, 4]))


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        ([], r"one or more tensors with the same first dimension, got shapes \[\]"),
        ([(2, 3), (3,)], r"got shapes \[\(2, 3\), \(3,\)\]"),
        ([()], r"got shapes \[\(\)\]"),
    ],
)
def test_a_tensor_dataset_needs_one_first_dimension(shapes: list[tuple[int, ...]], text: str) -> None:
    with pytest.raises(ShapeError, match=text):
        TensorDataset(*(np.zeros(shape) for shape in shapes))


def test_a_subset_has_the_items_at_its_indices() -> None:
    whole = TensorDataset(np.arange(10) * 10)
    part = Subset(Subset(whole, [9, 3, 5]), [2, 0])

    assert [item[0].item() for item in part] == [50, 90]
    assert part.read_batch(np.array([1, 0, -1]))[0].tolist() == [90, 50, 90]
    assert Subset("abc", [1, 1]).read_batch(np.array([0])) is None
    assert list(Subset("abc", [1, 1])) == ["b", "b"]


def test_a_dataset_without_getitem_says_so() -> None:
    class Empty(Dataset[int]):
        pass

    with pytest.raises(NotImplementedError, match="Empty has no __getitem__"):
        Empty()[0]


def test_a_subclass_that_changes_the_items_is_not_read_past() -> None:
    class Doubled(TensorDataset):
        def __getitem__(self, index: Any) -> tuple[Any, ...]:
            return tuple(2 * part for part in super().__getitem__(index))

    class Both(Doubled):
        def read_batch(self, indices: Any) -> list[Any]:
            return [2 * part for part in super().read_batch(indices)]

    indices = np.array([1])
    assert read_batch(Doubled(np.arange(3)), indices) is None
    assert read_batch(Both(np.arange(3)), indices)[0].tolist() == [2]
    assert read_batch([1, 2, 3], indices) is None


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [
        ([7, 3], [7, 3]),
        ([0.8, 0.2], [8, 2]),
        ([1 / 3, 1 / 3, 1 / 3], [4, 3, 3]),
        ([10], [10]),
        ([1.0], [10]),
        ([0, 10], [0, 10]),
    ],
)
def test_random_split_shares_out_every_item_once(lengths: list[Any], sizes: list[int]) -> None:
    parts = random_split(range(10), lengths, generator=3)

    assert [len(part) for part in parts] == sizes
    assert sorted(item for part in parts for item in part) == list(range(10))


def test_random_split_follows_its_seed() -> None:
    def split(generator: Any) -> list[int]:
        return list(random_split(range(100), [50, 50], generator=generator)[0])

    assert split(1) == split(1) != split(2)
    assert split(hal.Generator().manual_seed(5)) == split(hal.Generator().manual_seed(5))
    hal.manual_seed(0)
    first, second = split(None), split(None)
    hal.manual_seed(0)
    assert (split(None), split(None)) == (first, second)
    assert first != second


@pytest.mark.parametrize("lengths", [[7, 4], [0.5, 0.4], [-1, 11], []])
def test_random_split_needs_lengths_that_sum_up(lengths: list[Any]) -> None:
    with pytest.raises(ValueError, match="random_split needs lengths"):
        random_split(range(10), lengths, generator=0)


# --- samplers ---------------------------------------------------------------------------------------------------------


def test_the_random_order_is_pinned() -> None:
    """The order is a promise across releases, platforms and devices: a checkpoint's seed means the same for ever."""
    sampler = RandomSampler(range(10), generator=7)

    assert list(sampler) == [8, 4, 1, 6, 3, 2, 7, 5, 9, 0]
    assert list(sampler) == [3, 9, 1, 6, 2, 5, 4, 8, 0, 7]
    sampler.set_epoch(0)
    assert list(sampler) == [8, 4, 1, 6, 3, 2, 7, 5, 9, 0]
    assert list(RandomSampler(range(10), replacement=True, generator=7)) == [2, 5, 0, 2, 0, 4, 8, 7, 0, 4]
    assert list(random_split(range(10), [5, 5], generator=7)[0]) == [1, 4, 0, 2, 3]


def test_a_random_order_has_each_index_once_unless_replacing() -> None:
    assert sorted(RandomSampler(range(50), generator=0)) == list(range(50))
    with_repeats = list(RandomSampler(range(50), replacement=True, generator=0))
    assert len(with_repeats) == 50
    assert set(with_repeats) < set(range(50))
    more = list(RandomSampler(range(4), num_samples=10, generator=0))
    assert len(more) == 10
    assert sorted(more[:4]) == sorted(more[4:8]) == [0, 1, 2, 3]
    assert list(RandomSampler([], generator=0)) == []
    assert len(RandomSampler(range(4), num_samples=10)) == 10


def test_a_sampler_restored_goes_on_with_the_next_pass() -> None:
    first = RandomSampler(range(20))
    list(first)
    state = first.state_dict()

    second = RandomSampler(range(20))
    second.load_state_dict(state)

    assert state["epoch"] == 1
    assert [list(second), list(second)] == [list(first), list(first)]


def test_two_iterators_of_a_sampler_are_two_passes() -> None:
    sampler = RandomSampler(range(20), generator=0)
    one, two = iter(sampler), iter(sampler)
    again = RandomSampler(range(20), generator=0)
    assert [list(one), list(two)] == [list(again), list(again)]


def test_manual_seed_decides_the_order_without_a_generator() -> None:
    def orders() -> list[list[int]]:
        hal.manual_seed(11)
        return [list(RandomSampler(range(30))), list(RandomSampler(range(30)))]

    first = orders()
    assert first == orders()
    assert first[0] != first[1]
    hal.manual_seed(11)
    assert RandomSampler(range(30)).state_dict() == {"seed": 1171529959058969227, "epoch": 0}


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: RandomSampler([1], num_samples=0), ValueError, "num_samples to be a positive integer or None, got 0"),
        (lambda: RandomSampler([1], generator=-1), ValueError, r"a seed from 0 to 2\*\*64 - 1, got -1"),
        (lambda: RandomSampler([1], generator=2**64), ValueError, "a seed from 0"),
        (lambda: RandomSampler([1]).load_state_dict({"seed": 1}), StateError, r"'seed' and 'epoch', got \['seed'\]"),
        (lambda: BatchSampler([1], 0), ValueError, "a batch size must be a positive integer, got 0"),
        (lambda: BatchSampler([1], True), ValueError, "got True"),
        (lambda: BatchSampler([1], 2.0), ValueError, r"got 2\.0"),
        (lambda: len(BatchSampler(iter([1]), 2)), TypeError, "has no length"),
    ],
)
def test_sampler_errors(make: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize(
    ("size", "drop_last", "batches"),
    [(5, False, [[0, 1], [2, 3], [4]]), (5, True, [[0, 1], [2, 3]]), (4, True, [[0, 1], [2, 3]]), (0, False, [])],
)
def test_a_batch_sampler_groups_indices(size: int, drop_last: bool, batches: list[list[int]]) -> None:
    sampler = BatchSampler(SequentialSampler(range(size)), np.int64(2), drop_last)
    assert list(sampler) == batches
    assert len(sampler) == len(batches)


# --- collate ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "dtype", "values"),
    [
        ([1, 2], "int64", [1, 2]),
        ([True, False], "bool", [True, False]),
        ([1.5, 2], "float32", [1.5, 2.0]),
        ([np.float64(1), np.float64(2)], "float64", [1.0, 2.0]),
        ([np.uint8(1), np.uint8(2)], "uint8", [1, 2]),
        ([np.ones(2, np.int8), np.zeros(2, np.int8)], "int8", [[1, 1], [0, 0]]),
        ([1j, 2], "complex64", [1j, 2]),
    ],
)
def test_numbers_and_arrays_are_stacked(items: list[Any], dtype: str, values: Any) -> None:
    with hal.device("cpu"):  # which has all these types
        batch = default_collate(items)
    assert (batch.dtype, batch.tolist()) == (getattr(hal, dtype), values)


def test_tensors_are_stacked() -> None:
    batch = default_collate([hal.tensor([1.0, 2.0]), hal.tensor([3.0, 4.0])])
    assert (batch.dtype, batch.tolist()) == (hal.float32, [[1.0, 2.0], [3.0, 4.0]])


def test_containers_are_collated_part_by_part() -> None:
    assert default_collate(["a", "b"]) == ["a", "b"]
    pair = default_collate([(1, "a"), (2, "b")])
    assert isinstance(pair, list)
    assert (pair[0].tolist(), pair[1]) == ([1, 2], ["a", "b"])
    mapping = default_collate([{"x": [1, 2.0]}, {"x": [3, 4.0]}])
    assert [part.tolist() for part in mapping["x"]] == [[1, 3], [2.0, 4.0]]
    point = default_collate([Point(1, 2), Point(3, 4)])
    assert isinstance(point, Point)
    assert (point.x.tolist(), point.y.tolist()) == ([1, 3], [2, 4])


@pytest.mark.parametrize(
    ("items", "error", "text"),
    [
        ([np.zeros(3), np.zeros(3), np.zeros(4)], ShapeError, r"got \(3,\) in item 0 and \(4,\) in item 2"),
        ([hal.tensor([1.0]), hal.tensor([1.0, 2.0])], ShapeError, r"got \(1,\) in item 0 and \(2,\) in item 1"),
        ([(1, 2), (1,)], ShapeError, "got 2 elements in item 0 and 1 in item 1"),
        ([{"a": 1}, {"b": 1}], KeyError, r"got \['a'\] in item 0 and \['b'\] in item 1"),
        ([1, "a"], TypeError, "got int in item 0 and str in item 1"),
        ([None], TypeError, r"got NoneType: .* pass DataLoader\(collate_fn=...\)"),
        ([], ShapeError, "at least one item, got none"),
    ],
)
def test_collate_errors(items: list[Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        default_collate(items)

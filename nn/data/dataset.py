"""Datasets: items by index, and parts of datasets; those that hold arrays also answer a whole batch at once."""

from __future__ import annotations

import math
import operator
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Generic, SupportsIndex, TypeVar

import numpy as np
from numpy.typing import NDArray

import hal
from hal.errors import ShapeError
from nn.data.collate import as_tensor
from nn.data.sampler import permutation, seed_of

T_co = TypeVar("T_co", covariant=True)
Indices = NDArray[np.int64]
_SPLIT = 2**64 - 1  # the stream of random_split, apart from those of the passes 0, 1, 2, ...


class Dataset(Generic[T_co]):
    """Base of the datasets: write `__getitem__` and `__len__` (torch.utils.data.Dataset).

    Anything with these two methods can be loaded. With worker threads `__getitem__` is called from several of them
    at once.

    >>> class Squares(Dataset[tuple[float, float]]):
    ...     def __len__(self):
    ...         return 3
    ...
    ...     def __getitem__(self, index):
    ...         return float(index), float(index) ** 2
    >>> Squares()[2]
    (2.0, 4.0)
    """

    def __getitem__(self, index: int) -> T_co:
        raise NotImplementedError(f"{type(self).__name__} has no __getitem__: write one that returns the item `index`")

    def read_batch(self, indices: Indices) -> Any:
        """The batch of these items at once, as `default_collate` would make it, with arrays in place of tensors.

        The loader asks for this first when it has no `collate_fn` of its own. None, the default, has it ask for the
        items one by one.
        """
        return None

    def __add__(self, other: Any) -> ConcatDataset[Any]:
        return ConcatDataset([self, other])


class ConcatDataset(Dataset[T_co]):
    """The items of several datasets, one dataset after the other; `a + b` makes one of two.

    Args:
        datasets: at least one, each with a length.

    Raises:
        ValueError: there is none.

    >>> list(ConcatDataset([range(2), range(10, 13)]))
    [0, 1, 10, 11, 12]

    Source: torch.utils.data.ConcatDataset.
    """

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ValueError("ConcatDataset needs at least one dataset, got none")
        self.cumulative_sizes = list(accumulate(map(len, self.datasets)))

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: SupportsIndex) -> T_co:
        place = check_index(index, len(self), self) % len(self)
        which = bisect_right(self.cumulative_sizes, place)
        item: T_co = self.datasets[which][place - (self.cumulative_sizes[which - 1] if which else 0)]
        return item


class IterableDataset(Generic[T_co]):
    """Base of datasets that are a stream: write `__iter__`. Items come in its order; there are no indices to shuffle.

    The loader's loop reads the stream; its threads make the batches and copy them to the device.

    Source: torch.utils.data.IterableDataset.
    """

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError(f"{type(self).__name__} has no __iter__: write one that yields the items")


class TensorDataset(Dataset[tuple[Any, ...]]):
    """Items are the rows of one or more tensors or arrays: item i is (tensors[0][i], tensors[1][i], ...).

    Args:
        tensors: tensors or NumPy arrays with the same first dimension. Nothing is copied: what is written into them
            later shows in the items.

    A tensor's batches stay on its device; an array's are put on the default device, with its dtype.
    Source: torch.utils.data.TensorDataset.

    Raises:
        ShapeError: if there is no tensor, a 0-d one, or one with another first dimension.
    """

    def __init__(self, *tensors: Any) -> None:
        self.tensors = tuple(t if isinstance(t, hal.Tensor) else np.asarray(t) for t in tensors)
        shapes = [tuple(t.shape) for t in self.tensors]
        if not shapes or not all(shapes) or len({shape[0] for shape in shapes}) > 1:
            raise ShapeError(
                f"TensorDataset needs one or more tensors with the same first dimension, got shapes {shapes}"
            )

    def __len__(self) -> int:
        return int(self.tensors[0].shape[0])

    def __getitem__(self, index: SupportsIndex) -> tuple[Any, ...]:
        place = check_index(index, len(self), self)
        return tuple(t[place] if isinstance(t, hal.Tensor) else as_tensor(t[place]) for t in self.tensors)

    def read_batch(self, indices: Indices) -> list[Any]:
        """A list with the rows `indices` of each tensor."""
        rows = check_indices(indices, len(self), self)
        return [t[as_tensor(rows, device=t.device)] if isinstance(t, hal.Tensor) else t[rows] for t in self.tensors]


class Subset(Dataset[T_co]):
    """The items of another dataset at the given indices, in their order (torch.utils.data.Subset).

    Args:
        dataset: any dataset.
        indices: places in `dataset`; one may come more than once.
    """

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: SupportsIndex) -> T_co:
        item: T_co = self.dataset[int(self.indices[check_index(index, len(self), self)])]
        return item

    def read_batch(self, indices: Indices) -> Any:
        """What the dataset itself answers for these of its items."""
        return read_batch(self.dataset, np.asarray([self.indices[i] for i in indices.tolist()], np.int64))


def random_split(
    dataset: Any, lengths: Sequence[int | float], generator: int | hal.Generator | None = None
) -> list[Subset[Any]]:
    """Random parts of a dataset that share no item.

    Args:
        dataset: anything with a length.
        lengths: the items of each part, which sum to the length of the dataset; or fractions that sum to 1, where
            items left over by rounding down go to the first parts, one to each.
        generator: a seed, or a `hal.Generator` to draw it from; without one, hal's global generator. Equal seeds give
            equal parts on every machine.

    >>> [len(part) for part in random_split(range(10), [0.7, 0.3], generator=0)]
    [7, 3]

    Source: torch.utils.data.random_split.

    Raises:
        ValueError: if the lengths do not sum to the length of the dataset, or the fractions to 1.
    """
    sizes = _sizes(len(dataset), lengths)
    order = permutation(len(dataset), seed_of(generator, "random_split"), _SPLIT)
    ends = np.cumsum(sizes)
    return [Subset(dataset, order[end - size : end].tolist()) for size, end in zip(sizes, ends, strict=True)]


def _sizes(total: int, lengths: Sequence[int | float]) -> list[int]:
    if min(lengths, default=0) < 0:
        raise ValueError(f"random_split needs lengths of 0 or more, got {list(lengths)}")
    if all(isinstance(length, int | np.integer) for length in lengths) and sum(lengths) == total:
        return [int(length) for length in lengths]
    if not math.isclose(sum(lengths), 1.0):
        raise ValueError(
            f"random_split needs lengths that sum to the {total} items of the dataset, or fractions that sum to 1, "
            f"got {list(lengths)}"
        )
    sizes = [math.floor(total * fraction) for fraction in lengths]
    for place in range(total - sum(sizes)):
        sizes[place % len(sizes)] += 1
    return sizes


def read_batch(dataset: Any, indices: Indices) -> Any:
    """What the dataset answers for a whole batch; None if its items have to be asked for one by one.

    A subclass that overrides only `__getitem__` means its items to be changed: its parent's batches would not be.
    """
    for owner in type(dataset).__mro__:
        if "read_batch" in vars(owner):
            return dataset.read_batch(indices)
        if "__getitem__" in vars(owner):
            return None
    return None


def check_index(index: SupportsIndex, size: int, owner: object) -> int:
    """The index as an int, or an IndexError that says how many items there are."""
    place = operator.index(index)
    if not -size <= place < size:
        raise IndexError(f"{type(owner).__name__} has {size} items, got index {place}")
    return place


def check_indices(indices: Indices, size: int, owner: object) -> Indices:
    """The indices, or an IndexError that names the first one out of range."""
    wrong = (indices < -size) | (indices >= size)
    if wrong.any():
        check_index(int(indices[wrong][0]), size, owner)
    return indices

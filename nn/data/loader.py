"""The loader: an epoch of batches from a dataset, shuffled, read and put on a device ahead of the loop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

import hal
from hal.device import chosen
from hal.errors import StateError
from hal.source import user_line
from nn.data.collate import here, move_tensors, stack, to_tensors
from nn.data.dataset import IterableDataset, read_batch
from nn.data.prefetch import OrderedMap
from nn.data.processes import METHODS, Workers
from nn.data.randomness import begin, reading
from nn.data.sampler import BatchSampler, RandomSampler, SequentialSampler

Collate = Callable[[list[Any]], Any]


class DataLoader:
    """Iterating yields the batches of one pass over a dataset.

    Args:
        dataset: anything with `__getitem__` and `__len__`, such as a `Dataset`; or an `IterableDataset`, a stream
            without shuffling and samplers.
        batch_size: items in a batch.
        shuffle: a new random order in each pass.
        sampler: yields the indices of a pass instead; excludes `shuffle`.
        batch_sampler: yields lists of indices; excludes `batch_size`, `shuffle`, `sampler` and `drop_last`.
        num_workers: threads that read ahead; 0 reads each batch when it is asked for. The batches are the same.
        collate_fn: makes a batch of a list of items, and is passed on as it is; `default_collate` if not given.
        drop_last: leave out a last batch that is not full.
        generator: a seed for `shuffle`, or a `hal.Generator` to draw it from; without one, hal's global generator.
        prefetch_factor: batches that are read ahead for each thread.
        device: where the batches' tensors are put. Without one, arrays and numbers become tensors on the default
            device, and what are tensors already stay where they are. With threads, these copy too: the batches that
            are read ahead are on the device when the loop asks for them.
        multiprocessing_context: "spawn", "forkserver" or "fork": read in processes that are started like this, and
            kept, instead of threads: for datasets whose own Python code is the bottleneck. The batches are the same.
        worker_init_fn: called in each worker process, with its number, before it reads. Threads need none: they share
            what the program has set.
        pin_memory, persistent_workers: taken for torch's sake, and of no effect: workers persist, and whether host
            memory is pinned is the backend's affair.

    The order of pass n follows from the seed and n alone. `state_dict()` between two passes has both, and a loader of
    another run that gets them with `load_state_dict` continues with the same batches.

    The threads end with the pass, with the first error, and when its iterator is dropped. An error of the dataset is
    raised in the loop with its own type, where the batch would have come, and with a note of the item that caused it.
    Items are read by several threads at once. Random numbers that the transforms of `nn.data.transforms` draw belong
    to the item and the pass and repeat; those of a generator that `__getitem__` shares come in no fixed order.

    >>> [batch.tolist() for batch in DataLoader(range(5), batch_size=2)]
    [[0, 1], [2, 3], [4]]

    Source: torch.utils.data.DataLoader, with threads where it has processes, unless they are asked for.

    Raises:
        ValueError: for sizes that are no positive integers, and settings that exclude each other.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        sampler: Iterable[int] | None = None,
        batch_sampler: Iterable[Sequence[int]] | None = None,
        num_workers: int = 0,
        collate_fn: Collate | None = None,
        drop_last: bool = False,
        generator: int | hal.Generator | None = None,
        prefetch_factor: int = 2,
        device: Any = None,
        multiprocessing_context: str | None = None,
        worker_init_fn: Callable[[int], object] | None = None,
        pin_memory: bool = False,
        persistent_workers: bool = False,
    ) -> None:
        if multiprocessing_context is not None and (multiprocessing_context not in METHODS or num_workers < 1):
            raise ValueError(
                f"DataLoader needs multiprocessing_context= one of {METHODS} and num_workers= of 1 or more, "
                f"got {multiprocessing_context!r} and {num_workers}"
            )
        for name, value, least in [("num_workers", num_workers, 0), ("prefetch_factor", prefetch_factor, 1)]:
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"DataLoader needs {name} to be an integer of at least {least}, got {value!r}")
        if batch_sampler is not None and (batch_size != 1 or shuffle or sampler is not None or drop_last):
            raise ValueError(
                "DataLoader(batch_sampler=...) decides on the batches alone: leave out batch_size, shuffle, sampler "
                "and drop_last"
            )
        if sampler is not None and shuffle:
            raise ValueError("DataLoader takes its order from sampler or from shuffle, got both: leave one out")
        self.dataset = dataset
        if isinstance(dataset, IterableDataset):
            if shuffle or sampler is not None or batch_sampler is not None:
                raise ValueError("DataLoader takes a stream as it comes: leave out shuffle, sampler and batch_sampler")
            sampler = dataset  # its items take the place of indices
        elif sampler is None:
            sampler = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)
        self.sampler = sampler
        self.batch_sampler = BatchSampler(sampler, batch_size, drop_last) if batch_sampler is None else batch_sampler
        self.batch_size = batch_size if batch_sampler is None else None
        self.drop_last = drop_last
        self.num_workers = int(num_workers)
        self.prefetch_factor = int(prefetch_factor)
        self.collate_fn = collate_fn
        self.generator = generator
        self.device = device
        self.multiprocessing_context = multiprocessing_context
        self.worker_init_fn = worker_init_fn
        self._passes = 0
        self._workers: Workers | None = None

    def __iter__(self) -> Iterator[Any]:
        return _Pass(self)

    def iterate(self, skip: int = 0, device: Any = None) -> Iterator[Any]:
        """The batches of one pass without the first `skip`, which are not read: to go on in the middle of a pass.

        Args:
            device: where the batches are put, instead of the loader's own.
        """
        return _Pass(self, skip, device)

    def __len__(self) -> int:
        if not isinstance(self.batch_sampler, Sized):
            raise TypeError(f"{type(self.batch_sampler).__name__} has no length, so neither has its DataLoader")
        return len(self.batch_sampler)

    def read(self, indices: Sequence[Any]) -> Any:
        """One batch, with arrays where they are yet to become tensors. Called from the worker threads.

        Of a stream, the items themselves are given.
        """
        if self.collate_fn is None and not isinstance(self.dataset, IterableDataset):
            batch = self._read_at_once(indices)
            if batch is not None:
                return batch
        stream = isinstance(self.dataset, IterableDataset)
        items = list(indices) if stream else [self._item(index) for index in indices]
        try:
            return stack(items) if self.collate_fn is None else self.collate_fn(items)
        except Exception as error:
            which = f"{len(items)} items" if stream else f"the items {_short(indices)}"
            error.add_note(f"DataLoader was making a batch of {which} of {self._name()}")
            raise

    def state_dict(self) -> dict[str, Any]:
        """The seed and the number of the next pass; empty if the order is always the same.

        A sampler of one's own takes part by having `state_dict` and `load_state_dict` itself.
        """
        source = self._stateful()
        return {} if source is None else dict(source.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the pass that would have come next for the loader that wrote `state`.

        Raises:
            StateError: if `state` is not of a loader like this one.
        """
        source = self._stateful()
        if source is not None:
            source.load_state_dict(state)
            return
        if state:
            raise StateError(
                f"this DataLoader has nothing to restore, as it always reads in the same order, got a state with "
                f"{sorted(state)}: build it with shuffle=True as the one that was saved"
            )

    def __getstate__(self) -> dict[str, Any]:
        """What a worker process gets a copy of."""
        return self.__dict__ | {"_workers": None, "generator": None, "sampler": None, "batch_sampler": None}

    def _processes(self) -> Workers | None:
        """The worker processes, started for the first pass; None if threads read."""
        if self.multiprocessing_context is not None and self._workers is None:
            self._workers = Workers(self, self.num_workers, self.multiprocessing_context)
        return self._workers

    def _stream(self) -> tuple[int, int]:
        """The seed and the number of the pass that begins now, of which the random numbers of its items are made."""
        source = self._stateful()
        state = {} if source is None else source.state_dict()
        self._passes += 1
        seed = self.generator if isinstance(self.generator, int) else 0
        return int(state.get("seed", seed)), int(state.get("epoch", self._passes - 1))

    def _stateful(self) -> Any:
        """What keeps the order between passes, or None."""
        for source in (self.batch_sampler, getattr(self.batch_sampler, "sampler", None)):
            if hasattr(source, "state_dict") and hasattr(source, "load_state_dict"):
                return source
        return None

    def _read_at_once(self, indices: Sequence[int]) -> Any:
        try:
            return read_batch(self.dataset, np.asarray(indices, np.int64))
        except Exception as error:
            for index in indices:  # to name the item that is at fault, where there is one
                self._item(index)
            error.add_note(f"DataLoader was reading the items {_short(indices)} of {self._name()}")
            raise

    def _item(self, index: int) -> Any:
        begin(int(index))
        try:
            return self.dataset[index]
        except Exception as error:
            error.add_note(f"DataLoader was reading item {index} of {self._name()}")
            raise

    def _name(self) -> str:
        return type(self.dataset).__name__


class _Pass(Iterator[Any]):
    """One pass over a loader's dataset."""

    def __init__(self, loader: DataLoader, skip: int = 0, device: Any = None) -> None:
        target = loader.device if device is None else device
        self._batches = OrderedMap(
            partial(_read, loader, loader._processes(), target, chosen(), loader._stream()),
            islice(loader.batch_sampler, skip, None) if skip else loader.batch_sampler,
            threads=loader.num_workers,
            ahead=loader.num_workers * loader.prefetch_factor,
            name="DataLoader worker",
        )

    def __next__(self) -> Any:
        return here(next(self._batches), user_line())

    def close(self) -> None:
        """End the pass and its threads now; dropping the iterator does the same."""
        self._batches.close()


def _read(
    loader: DataLoader,
    workers: Workers | None,
    target: Any,
    around: hal.Device | None,
    stream: tuple[int, int],
    indices: Sequence[int],
) -> Any:
    """One batch on its device, made under the `with device:` that the loop is in, which holds for one thread only.

    It is copied by the thread that read it, so that the loop, which asks for it later, does not wait for that.
    """
    with contextlib.nullcontext() if around is None else around, reading(stream):
        batch = loader.read(indices) if workers is None else workers.read(stream, indices)
        if loader.collate_fn is None:
            return to_tensors(batch, target)
        return batch if target is None else move_tensors(batch, target)


def _short(indices: Sequence[int]) -> str:
    """The first few indices, for a message."""
    shown = [str(index) for index in indices[:8]]
    return f"[{', '.join(shown)}{', ...' if len(indices) > len(shown) else ''}]"

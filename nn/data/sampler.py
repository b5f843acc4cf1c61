"""In which order a loader reads its items: samplers yield indices, and a shuffled order follows from its seed alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

import hal
from hal.errors import StateError

T_co = TypeVar("T_co", covariant=True)
_WORD = 2**64  # a Philox key is two 64-bit words: the seed and the stream


class Sampler(Generic[T_co]):
    """Base of the samplers: iterating yields the indices of one pass, `len` says how many.

    Any iterable does as a sampler; this class gives it a name and a type (torch.utils.data.Sampler).
    """

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError(f"{type(self).__name__} has no __iter__: write one that yields the indices of a pass")


class SequentialSampler(Sampler[int]):
    """The items in their own order: 0, 1, 2, ... (torch.utils.data.SequentialSampler)."""

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """A new random order in each pass, the same one whenever the seed and the number of the pass are.

    Args:
        data_source: anything with a length.
        replacement: draw each index anew, so that one may come twice and another not at all.
        num_samples: indices in a pass; the length of the data if not given.
        generator: a seed, or a `hal.Generator` that the seed is drawn from, once, when it is first needed. Without
            one it is drawn from hal's global generator, so that `hal.manual_seed` decides.

    The order does not depend on the device, the platform or the release of NumPy. `set_epoch` goes to a given pass;
    `state_dict` and `load_state_dict` continue a run with the pass that would have come next.

    Source: torch.utils.data.RandomSampler; the keys that are sorted are Philox4x64-10 (Salmon et al., "Parallel
    Random Numbers: As Easy as 1, 2, 3", 2011).

    Raises:
        ValueError: for a seed outside 64 bits, or a number of samples that is not positive.
    """

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: int | hal.Generator | None = None,
    ) -> None:
        if num_samples is not None and num_samples < 1:
            raise ValueError(f"RandomSampler needs num_samples to be a positive integer or None, got {num_samples}")
        self.data_source = data_source
        self.replacement = replacement
        self.generator = generator
        self.epoch = 0
        self._num_samples = num_samples
        self._seed = seed_of(generator, "RandomSampler") if isinstance(generator, int | np.integer) else None

    @property
    def num_samples(self) -> int:
        """Indices in a pass."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    @property
    def seed(self) -> int:
        """What every order of this sampler follows from; drawn at the first question if none was given."""
        if self._seed is None:
            self._seed = seed_of(self.generator, "RandomSampler")
        return self._seed

    def set_epoch(self, epoch: int) -> None:
        """Make the pass with this number the next one."""
        self.epoch = epoch

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The indices of the pass with this number: shape (num_samples,), int64."""
        size = len(self.data_source)
        if not size:
            return np.empty(0, np.int64)
        if self.replacement:
            keys = _philox(self.seed, epoch).random_raw(self.num_samples)
            return (keys % np.uint64(size)).astype(np.int64)
        rounds = -(-self.num_samples // size)
        return permutation(size, self.seed, epoch, rounds=rounds)[: self.num_samples]

    def __iter__(self) -> Iterator[int]:
        # The pass is counted when it begins, not when its first index is asked for: two iterators are two passes.
        order = self.order(self.epoch)
        self.epoch += 1
        return iter(order.tolist())

    def __len__(self) -> int:
        return self.num_samples if len(self.data_source) else 0

    def state_dict(self) -> dict[str, int]:
        """The seed and the number of the next pass."""
        return {"seed": self.seed, "epoch": self.epoch}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue where the sampler that wrote `state` would have begun its next pass.

        Raises:
            StateError: if `state` is not what `state_dict` returns.
        """
        if set(state) != {"seed", "epoch"}:
            raise StateError(f"RandomSampler needs a state with 'seed' and 'epoch', got {sorted(state)}")
        seed, epoch = seed_of(state["seed"], "RandomSampler"), int(state["epoch"])
        self._seed, self.epoch = seed, epoch


class SubsetRandomSampler(RandomSampler):
    """These indices in a new random order in each pass; otherwise a `RandomSampler`.

    Source: torch.utils.data.SubsetRandomSampler.
    """

    def __init__(self, indices: Sequence[int], generator: int | hal.Generator | None = None) -> None:
        super().__init__(indices, generator=generator)
        self.indices = np.asarray(indices, np.int64)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The indices of the pass with this number."""
        return self.indices[super().order(epoch)]


class WeightedRandomSampler(RandomSampler):
    """Indices drawn by weight, so that rare classes come as often as common ones; otherwise a `RandomSampler`.

    Args:
        weights: of each item, not negative, not all zero; they need not sum to 1.
        num_samples: indices in a pass.
        replacement: draw each index anew; without, each item comes at most once.

    Raises:
        ValueError: weights that are negative or all zero, or more samples than items without replacement.

    Source: torch.utils.data.WeightedRandomSampler; without replacement Efraimidis and Spirakis, "Weighted random
    sampling with a reservoir", 2006.
    """

    def __init__(
        self, weights: Sequence[float], num_samples: int, replacement: bool = True,
        generator: int | hal.Generator | None = None,
    ) -> None:  # fmt: skip
        self.weights = np.asarray(weights, np.float64)
        if self.weights.ndim != 1 or not self.weights.sum() > 0 or (self.weights < 0).any():
            raise ValueError("WeightedRandomSampler needs weights of 0 or more, with at least one above, in a sequence")
        super().__init__(self.weights, replacement, num_samples, generator)
        if not replacement and num_samples > np.count_nonzero(self.weights):
            raise ValueError(
                f"WeightedRandomSampler without replacement cannot draw {num_samples} of the "
                f"{np.count_nonzero(self.weights)} items that have a weight"
            )

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The indices of the pass with this number."""
        count = self.num_samples if self.replacement else len(self.weights)
        unit = (_philox(self.seed, epoch).random_raw(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        if self.replacement:
            edges = np.cumsum(self.weights)
            return np.searchsorted(edges, unit * edges[-1], side="right").astype(np.int64)
        with np.errstate(divide="ignore"):
            arrival = -np.log1p(-unit) / self.weights  # the first of exponential races, with these speeds
        return np.argsort(np.where(self.weights > 0, arrival, np.inf), kind="stable")[: self.num_samples]


class BatchSampler(Sampler[list[int]]):
    """Groups the indices of another sampler into lists of `batch_size` (torch.utils.data.BatchSampler).

    Args:
        sampler: any iterable of indices.
        batch_size: indices in a batch; the last one may have fewer.
        drop_last: leave out a last batch that is not full.

    Raises:
        ValueError: if `batch_size` is not a positive integer.
    """

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool = False) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
            raise ValueError(f"a batch size must be a positive integer, got {batch_size!r}")
        self.sampler = sampler
        self.batch_size = int(batch_size)
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        return self._batches(iter(self.sampler))

    def _batches(self, indices: Iterator[int]) -> Iterator[list[int]]:
        while batch := list(islice(indices, self.batch_size)):
            if self.drop_last and len(batch) < self.batch_size:
                return
            yield batch

    def __len__(self) -> int:
        if not isinstance(self.sampler, Sized):
            raise TypeError(f"{type(self.sampler).__name__} has no length, so the number of its batches is not known")
        full, rest = divmod(len(self.sampler), self.batch_size)
        return full + (1 if rest and not self.drop_last else 0)


def permutation(size: int, seed: int, stream: int, *, rounds: int = 1) -> NDArray[np.int64]:
    """`rounds` random orders of 0 ... size - 1, one after the other: shape (rounds * size,), int64.

    Random 64-bit keys are sorted, because the raw bits of Philox are fixed by its definition; what NumPy's own
    `permutation` makes of them may change between releases.
    """
    source = _philox(seed, stream)
    orders = [np.argsort(source.random_raw(size), kind="stable") for _ in range(rounds)]
    return np.concatenate(orders).astype(np.int64, copy=False)


def _philox(seed: int, stream: int) -> np.random.Philox:
    return np.random.Philox(key=np.array([seed % _WORD, stream % _WORD], np.uint64))


def seed_of(generator: int | np.integer[Any] | hal.Generator | None, who: str) -> int:
    """A seed as it is, or one drawn from this generator or hal's global one, which is thereby advanced.

    Raises:
        ValueError: for a seed outside 64 bits, naming `who` was given it.
    """
    if isinstance(generator, int | np.integer):
        if not 0 <= int(generator) < _WORD:
            raise ValueError(f"{who} needs a seed from 0 to 2**64 - 1, got {generator}")
        return int(generator)
    # The state is used as a key, on the host: shuffling asks nothing of the default device.
    words = (generator or hal.default_generator).advance(1)
    bits = _philox(words[0] | words[1] << 32, words[2] | words[3] << 32).random_raw()
    return int(bits) >> 1  # a signed 64-bit integer, which any file format can keep

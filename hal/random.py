"""Random numbers: generators, and the functions that draw. The same seed gives the same bits on every device.

A generator is a key and a counter. Each draw takes the present state (four words, on the device that draws) and moves
the counter on by as much as its elements need, so what is drawn next depends on how much was drawn, and on no device.
"""

from __future__ import annotations

import math
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import dtypes, ops, tracing
from hal.creation import DeviceLike, placed, shape_of
from hal.device import Device
from hal.errors import DTypeError, SettingError, ShapeError
from hal.functions.arguments import is_tensor
from hal.interop import host_array
from hal.ops.random import counters
from hal.spec import Spec
from hal.tensor import Origin, Tensor
from hal.transfer import upload

if TYPE_CHECKING:
    from hal.dtypes import DType
    from hal.op import Array

_WORD = (1 << 32) - 1
_LONG = (1 << 64) - 1
_STATE = Spec((4,), dtypes.uint32)


class Generator:
    """A stream of random numbers. Two with the same seed give the same numbers, on any devices.

    Until it is given a seed it has a random one. Threads may draw at once; each draw is one piece of the stream.

    Attributes:
        device: where `hal.rand` and the like draw with it, if they are not told; None: the default device.

    Source: torch.Generator.
    """

    def __init__(self, device: DeviceLike = None) -> None:
        self.device = None if device is None else Device(device)
        self._key: int | None = None
        self._counter = 0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Generator{'' if self.device is None else f' on {self.device}'}>"

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of this seed, any 64-bit integer. Source: torch.Generator.manual_seed."""
        if not isinstance(seed, (int, np.integer)) or not -(1 << 63) <= seed <= _LONG:
            raise SettingError(f"a seed is an integer of 64 bits, got {seed!r}")
        with self._lock:
            self._key, self._counter = int(seed) & _LONG, 0
        return self

    def seed(self) -> int:
        """Start the stream of a random seed, and say which. Source: torch.Generator.seed."""
        seed = int.from_bytes(os.urandom(8), "little")
        self.manual_seed(seed)
        return seed

    def initial_seed(self) -> int:
        """The seed of the stream. Source: torch.Generator.initial_seed."""
        with self._lock:
            return self._seeded()

    def _seeded(self) -> int:
        if self._key is None:
            self._key = int.from_bytes(os.urandom(8), "little")
        return self._key

    def advance(self, count: int) -> list[int]:
        """The four words of the present state (key and counter, low words first); the counter moves on by `count`."""
        with self._lock:
            key, counter = self._seeded(), self._counter
            self._counter = (counter + count) & _LONG
        return _words(key, counter)

    def state_after(self, count: int) -> Array:
        """The four words of the state that `advance(count)` would lead to, uint32[4]."""
        with self._lock:
            return np.array(_words(self._seeded(), (self._counter + count) & _LONG), np.uint32)

    def place(self, new: int | None = None) -> int:
        """How far the stream has moved on; it goes on from `new` if that is given."""
        with self._lock:
            self._seeded()
            before = self._counter
            if new is not None:
                self._counter = new
        return before

    def get_state(self) -> Tensor:
        """The state as a tensor, uint32[4]. Source: torch.Generator.get_state."""
        return _tensor(self.advance(0), *placed(self.device))

    def set_state(self, state: Tensor) -> Generator:
        """Go on from a state that `get_state` gave.

        Raises:
            DTypeError, ShapeError: it is no such state.

        Source: torch.Generator.set_state.
        """
        if not is_tensor(state) or state.dtype is not dtypes.uint32:
            got = state.dtype.name if is_tensor(state) else type(state).__name__
            raise DTypeError(f"set_state needs a uint32 tensor from get_state(), got {got}")
        if state.shape != (4,):
            raise ShapeError(f"set_state needs a tensor of shape (4,) from get_state(), got {state.shape}")
        words = [int(w) for w in host_array(state, "set_state")]
        with self._lock:
            self._key, self._counter = words[0] | words[1] << 32, words[2] | words[3] << 32
        return self


def _words(key: int, counter: int) -> list[int]:
    return [key & _WORD, key >> 32, counter & _WORD, counter >> 32]


default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Start the stream of this seed in the default generator. Source: torch.manual_seed."""
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Start the stream of a random seed in the default generator, and say which. Source: torch.seed."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed of the default generator. Source: torch.initial_seed."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The state of the default generator, uint32[4]. Source: torch.get_rng_state."""
    return default_generator.get_state()


def set_rng_state(state: Tensor) -> None:
    """Let the default generator go on from `state`. Source: torch.set_rng_state."""
    default_generator.set_state(state)


def _tensor(words: list[int], device: Device, origin: Origin) -> Tensor:
    return Tensor(upload(np.array(words, np.uint32), _STATE, device), _STATE, device, origin)


def next_state(size: int, device: DeviceLike = None, generator: Generator | None = None) -> Tensor:
    """The state for one random op of `size` elements, uint32[4] on its device; the generator moves on past it."""
    stream = generator or default_generator
    where, origin = placed(device if device is not None or generator is None else generator.device)
    tracer = tracing.active()
    if tracer is not None:
        return tracer.random_state(stream, counters(size), _STATE, where, origin)
    return _tensor(stream.advance(counters(size)), where, origin)


class same_numbers:  # used like a function
    """What the default generator draws from here on is drawn again inside `with` blocks of this, as often as wanted."""

    def __init__(self) -> None:
        tracer = tracing.active()
        self._from = default_generator.place() if tracer is None else tracer.draws.get(default_generator, 0)
        self._back: list[int] = []

    def __enter__(self) -> None:
        self._back.append(self._go_to(self._from))

    def __exit__(self, *exception: object) -> None:
        self._go_to(self._back.pop())

    @staticmethod
    def _go_to(place: int) -> int:
        tracer = tracing.active()
        if tracer is None:
            return default_generator.place(place)
        before = tracer.draws.get(default_generator, 0)
        tracer.draws[default_generator] = place
        return before


# Drawing.


def _leaf(out: Tensor, requires_grad: bool) -> Tensor:
    if requires_grad:
        out.requires_grad = True
    return out


def _float(dtype: Any) -> DType:
    return dtypes.DEFAULT_FLOAT if dtype is None else dtypes.dtype(dtype)


def rand(
    *sizes: Any, size: Any = None, generator: Generator | None = None, dtype: Any = None, device: DeviceLike = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Random numbers, uniform in [0, 1), of shape `size`, a tuple or several integers. Source: torch.rand."""
    shape = shape_of("rand", sizes, size)
    state = next_state(math.prod(shape), device, generator)
    return _leaf(ops.uniform(state, shape=shape, dtype=_float(dtype)), requires_grad)


def randn(
    *sizes: Any, size: Any = None, generator: Generator | None = None, dtype: Any = None, device: DeviceLike = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Random numbers of the standard normal distribution, of shape `size`. Source: torch.randn."""
    shape = shape_of("randn", sizes, size)
    state = next_state(math.prod(shape), device, generator)
    return _leaf(ops.normal(state, shape=shape, dtype=_float(dtype)), requires_grad)


def uniform(
    shape: Any, low: float = 0.0, high: float = 1.0, *, generator: Generator | None = None, dtype: Any = None,
    device: DeviceLike = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Random numbers, uniform in [low, high)."""
    sizes = shape_of("uniform", (shape,))
    state = next_state(math.prod(sizes), device, generator)
    drawn = ops.uniform(state, shape=sizes, dtype=_float(dtype), low=float(low), high=float(high))
    return _leaf(drawn, requires_grad)


def normal(
    mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None, dtype: Any = None,
    device: DeviceLike = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Random numbers of normal distributions: of one, with a size; or one for each element of `mean` and `std`.

    Raises:
        SettingError: two numbers and no size.

    Source: torch.normal.
    """
    given = [x for x in (mean, std) if is_tensor(x)]
    if given:
        like = mean + std if len(given) == 2 else given[0]
        state = next_state(like.spec.size, like.device, generator)
        return ops.normal(state, shape=like.shape, dtype=like.dtype) * std + mean
    if size is None:
        raise SettingError("normal needs size= where mean and std are numbers")
    shape = shape_of("normal", (size,))
    state = next_state(math.prod(shape), device, generator)
    drawn = ops.normal(state, shape=shape, dtype=_float(dtype), mean=float(mean), std=float(std))
    return _leaf(drawn, requires_grad)


def randint(
    low: int, high: Any = None, size: Any = None, *, generator: Generator | None = None, dtype: Any = None,
    device: DeviceLike = None,
) -> Tensor:  # fmt: skip
    """Random integers in [low, high) of shape `size`; `randint(high, size)` starts from 0. Source: torch.randint.

    Raises:
        SettingError: no size, or bounds that the dtype does not hold.
    """
    if isinstance(high, (tuple, list)):
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    if size is None:
        raise SettingError("randint needs a size: randint(high, size) or randint(low, high, size)")
    shape = shape_of("randint", (size,))
    wanted = dtypes.DEFAULT_INT if dtype is None else dtypes.dtype(dtype)
    drawn_in = wanted if wanted.kind in ("int", "uint") else dtypes.DEFAULT_INT
    state = next_state(math.prod(shape), device, generator)
    drawn = ops.randint(state, shape=shape, low=int(low), high=int(high), dtype=drawn_in)
    return drawn if drawn_in is wanted else ops.cast(drawn, dtype=wanted)


def randperm(n: int, *, generator: Generator | None = None, dtype: Any = None, device: DeviceLike = None) -> Tensor:
    """The integers from 0 to n - 1 in random order. Source: torch.randperm."""
    state = next_state(n, device, generator)
    keys = ops.randint(state, shape=shape_of("randperm", (n,)), low=0, high=1 << 62, dtype=dtypes.int64)
    order = ops.argsort(keys, axis=0, stable=True)  # equal keys, one chance in 2**62 for a pair, keep their order
    return order if dtype is None else order.to(dtypes.dtype(dtype))


def rand_like(x: Tensor, *, generator: Generator | None = None, dtype: Any = None, device: DeviceLike = None) -> Tensor:
    """Random numbers, uniform in [0, 1), with the shape, dtype and device of `x`. Source: torch.rand_like."""
    return rand(x.shape, generator=generator, dtype=dtype or x.dtype, device=device or x.device)


def randn_like(
    x: Tensor, *, generator: Generator | None = None, dtype: Any = None, device: DeviceLike = None
) -> Tensor:
    """Standard normal random numbers with the shape, dtype and device of `x`. Source: torch.randn_like."""
    return randn(x.shape, generator=generator, dtype=dtype or x.dtype, device=device or x.device)


def randint_like(
    x: Tensor, low: int, high: int | None = None, *, generator: Generator | None = None, dtype: Any = None,
    device: DeviceLike = None,
) -> Tensor:  # fmt: skip
    """Random integers in [low, high) with the shape, dtype and device of `x`. Source: torch.randint_like."""
    low, high = (0, low) if high is None else (low, high)
    return randint(low, high, x.shape, generator=generator, dtype=dtype or x.dtype, device=device or x.device)


def bernoulli(p: Tensor, *, generator: Generator | None = None) -> Tensor:
    """1 with the probability that `p` holds for each element, else 0, in the dtype of `p`. Source: torch.bernoulli."""
    return ops.bernoulli(p, next_state(p.spec.size, p.device, generator))


def multinomial(
    weights: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Numbers of categories drawn with these weights, along the last axis of a vector or matrix; int64.

    Without replacement, by exponential races: category i wins with the smallest Exp(1) / weight i.

    Raises:
        ShapeError: more samples than categories without replacement, or more than two axes.

    Source: torch.multinomial.
    """
    if weights.ndim not in (1, 2):
        raise ShapeError(f"multinomial needs a vector or a matrix of weights, got shape {weights.shape}")
    categories = weights.shape[-1]
    if num_samples < 1 or (not replacement and num_samples > categories):
        raise ShapeError(f"multinomial of {categories} categories cannot draw {num_samples} without replacement")
    p = weights if weights.dtype.is_floating else ops.cast(weights, dtype=dtypes.DEFAULT_FLOAT)
    if not replacement:
        state = next_state(p.spec.size, p.device, generator)
        arrival = -ops.log1p(-ops.uniform(state, shape=p.shape, dtype=p.dtype)) / p
        unlikely = ops.where(ops.equal(p, 0), math.inf, arrival)
        return ops.topk(unlikely, k=num_samples, axis=-1, largest=False)[1]
    shape = (*p.shape[:-1], num_samples)
    state = next_state(math.prod(shape), p.device, generator)
    unit = ops.uniform(state, shape=shape, dtype=p.dtype)
    total = ops.cumsum(p, axis=-1)
    edges = total / total.narrow(-1, categories - 1, 1)
    passed = ops.less_equal(edges.unsqueeze(-2), unit.unsqueeze(-1))
    return ops.count_nonzero(passed, axis=-1)

"""What a buffer of the spiking device holds: a constant, spike trains, or currents that nobody ever stores.

All three are signals: at each time step they give every synapse a current, and the mean over the steps is the value
that a download gives. No signal is ever changed, so that signals can share arrays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from hal.errors import DeviceError
from hal.plugin import Array

Affine = Callable[..., Array]


@dataclass(frozen=True, eq=True)
class Layer:
    """Where on the chip something happens: what reports have a line for.

    Attributes:
        kind: the op that the layer's synapses come from, or its neurons if it has no synapses.
        weights: the buffer with its weights, by which it is told from others of its kind.
        after: the layer that feeds it, where that is what tells it from others.
    """

    kind: str
    weights: Signal | None = None
    after: Layer | None = None


class Signal(ABC):
    """One value for each element, spread over the time steps.

    Attributes:
        steps: how many there are; None for a constant, which is the same in each.
        depth: layers of spiking neurons between the input and here.
        layer: whose signal it is; None for data from the host.
    """

    steps: int | None = None
    depth: int = 0
    layer: Layer | None = None

    @property
    @abstractmethod
    def value(self) -> Array:
        """The mean over the steps, which no one may change."""

    @abstractmethod
    def at(self, step: int) -> Array:
        """The current in one step."""

    @property
    @abstractmethod
    def events(self) -> Array:
        """How many messages each element sends in all steps together."""


class Constant(Signal):
    """Data at rest: weights, labels, and inputs, which act as the same current in every step."""

    def __init__(self, array: Array, layer: Layer | None = None) -> None:
        self.array = np.asarray(array)
        self.layer = layer

    @property
    def value(self) -> Array:
        return self.array

    def at(self, step: int) -> Array:
        return self.array

    @property
    def events(self) -> Array:
        return np.zeros(self.array.shape, np.int64)


class Spikes(Signal):
    """Spike trains, bool (steps, *shape). Each spike is a current of `amplitude`, the threshold of who sent it.

    Attributes:
        odd: float32 with NaN and infinities where a neuron should have integrated them, else 0; None where all were
            finite. They are handed on beside the spikes, so that they are seen in the end, as on other devices.
    """

    def __init__(
        self, train: Array, amplitude: float, layer: Layer | None, depth: int, odd: Array | None = None
    ) -> None:
        self.train = train
        self.amplitude = np.float32(amplitude)
        self.steps = len(train)
        self.layer = layer
        self.depth = depth
        self.odd = odd

    @cached_property
    def counts(self) -> Array:
        """How often each neuron fired: int64."""
        return np.asarray(np.sum(self.train, axis=0, dtype=np.int64))

    @property
    def value(self) -> Array:
        rates = np.asarray(self.counts * (float(self.amplitude) / len(self.train)), np.float32)
        return rates if self.odd is None else rates + self.odd

    def at(self, step: int) -> Array:
        current = np.multiply(self.train[step], self.amplitude, dtype=np.float32)
        return current if self.odd is None else current + self.odd

    @property
    def events(self) -> Array:
        return self.counts


class Current(Signal):
    """What synapses make of other signals, computed in the step in which it flows.

    `function` is affine, so what it makes of the sources' means is the mean of what it makes of the sources.
    """

    def __init__(self, function: Affine, sources: tuple[Signal, ...], steps: int, layer: Layer | None) -> None:
        self.function = function
        self.sources = sources
        self.steps: int = steps
        self.layer = layer
        self.depth = max(s.depth for s in sources)

    @cached_property
    def value(self) -> Array:  # kept, since a threshold and a download may both ask
        return np.asarray(self.function(*(s.value for s in self.sources)))

    def at(self, step: int) -> Array:
        return self.function(*(s.at(step) for s in self.sources))

    @property
    def events(self) -> Array:
        return np.full(self.value.shape, self.steps, np.int64)  # no neuron between: a graded message in every step


class Recorded(Signal):
    """Currents that depend on what came before, so that they have to be stored: float32 (steps, *shape)."""

    def __init__(self, trace: Array, layer: Layer | None, depth: int) -> None:
        self.trace = trace
        self.steps = len(trace)
        self.layer = layer
        self.depth = depth

    @property
    def value(self) -> Array:
        return np.asarray(np.mean(self.trace, axis=0, dtype=np.float64), np.float32)

    def at(self, step: int) -> Array:
        return np.asarray(self.trace[step])

    @property
    def events(self) -> Array:
        return np.full(self.trace.shape[1:], self.steps, np.int64)


def odd_ones(values: Array) -> Array | None:
    """What is not finite, 0 elsewhere; None if all is."""
    finite = np.isfinite(values)
    return None if finite.all() else np.where(finite, np.float32(0), values)


def combined(function: Affine, *sources: Signal, layer: Layer | None) -> Signal:
    """An affine function of signals: computed now if all are constant, else in each step.

    Raises:
        DeviceError: two signals have different numbers of steps.
    """
    steps = steps_of(*sources)
    if steps is None:
        return Constant(function(*(s.value for s in sources)), layer)
    return Current(function, sources, steps, layer)


def steps_of(*sources: Signal) -> int | None:
    """The number of steps that signals share; None if all are constant.

    Raises:
        DeviceError: they have different numbers.
    """
    found = {s.steps for s in sources if s.steps is not None}
    if len(found) > 1:
        raise DeviceError(
            f"spiking needs signals of one number of time steps, got {' and '.join(map(str, sorted(found)))}: "
            "compute all of them in the same hal_spiking.steps(...) block"
        )
    return found.pop() if found else None

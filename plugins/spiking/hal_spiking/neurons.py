"""Neurons: rectifiers as populations of integrate-and-fire neurons that are reset by subtraction.

Each neuron adds the current of every step to its membrane potential. When that reaches the threshold, the neuron
fires, and the threshold is subtracted: what is above it is not lost (Rueckauer et al., 2017). A neuron that begins
half-way to the threshold rounds its rate to the nearest number of spikes, instead of down (Bu et al., "Optimized
potential initialization for low-latency spiking neural networks", AAAI 2022).

As it fires at most once in a step, a neuron cuts its input off at the threshold. So hardtanh(x, low=0, high=h) is a
neuron with threshold h; for relu, which has no upper end, the threshold is balanced on the batch at hand: the largest
mean current in the layer (Diehl et al., 2015, do that with the training set; `hal_spiking.convert` does too).
"""

from __future__ import annotations

import numpy as np
from hal import ops
from hal.plugin import Array, Spec

from hal_spiking.reporting import note_neurons
from hal_spiking.settings import current_steps
from hal_spiking.signals import Layer, Signal, Spikes, odd_ones
from hal_spiking.synapses import in_float32
from hal_spiking.table import kernels

NEURONS = ("relu", "relu6", "hardtanh")  # as exact as a rate is


def fire(current: Signal, threshold: float, layer: Layer, odd: Array | None) -> Spikes:
    """The spikes of a population that integrates `current`; `odd` is what it hands on instead (see `Spikes`)."""
    steps = current.steps or current_steps()
    shape = current.value.shape
    potential = np.full(shape, threshold / 2)  # float64, so that nothing near the largest float32 overflows
    train = np.empty((steps, *shape), bool)
    for step in range(steps):
        potential += current.at(step)
        fired = np.greater_equal(potential, threshold, out=train[step, ...])
        np.subtract(potential, threshold, out=potential, where=fired)
    spikes = Spikes(train, threshold, layer, current.depth + 1, odd)
    note_neurons(spikes)
    return spikes


def balanced(current: Array) -> float:
    """A threshold that the strongest mean current just reaches in every step."""
    finite = current[np.isfinite(current)]
    largest = float(finite.max(initial=0.0))
    if largest > 0:
        return largest
    return float(np.abs(finite).max(initial=0.0)) or 1.0  # all silent; nothing small may set them off


@kernels.register(ops.relu, when=in_float32)
def relu(x: Signal) -> Signal:
    """Neurons whose threshold suits the batch."""
    return fire(x, balanced(x.value), _layer("relu", x), odd_ones(np.maximum(x.value, np.float32(0))))


def _bounded(kind: str, x: Signal, threshold: float) -> Signal:
    """Neurons that infinity drives as hard as they go."""
    return fire(x, threshold, _layer(kind, x), odd_ones(np.clip(x.value, np.float32(0), np.float32(threshold))))


@kernels.register(ops.relu6, when=in_float32)
def relu6(x: Signal) -> Signal:
    """Neurons whose threshold suits the batch, and is 6 at most."""
    return _bounded("relu6", x, 6.0 if np.isposinf(x.value).any() else min(6.0, balanced(x.value)))


def _from_zero(x: Spec, *, low: float, high: float) -> bool:
    return in_float32(x) and low == 0 and 0 < high < np.inf


@kernels.register(ops.hardtanh, when=_from_zero)
def hardtanh(x: Signal, *, low: float, high: float) -> Signal:
    """Neurons whose threshold is given, so that a sample gives the same in every batch."""
    return _bounded("hardtanh", x, high)


def _layer(kind: str, x: Signal) -> Layer:
    """The neurons of the layer whose synapses the current comes from."""
    return x.layer or Layer(kind)

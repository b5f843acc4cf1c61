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
from hal.errors import DeviceError
from hal.plugin import Array, Spec

from hal_spiking.reporting import note_neurons
from hal_spiking.settings import current_steps
from hal_spiking.signals import Layer, Signal, Spikes
from hal_spiking.synapses import in_float32
from hal_spiking.table import kernels

NEURONS = ("relu", "relu6", "hardtanh", "rnn_cell")  # what is as exact as a rate; the last decomposes into relu


def fire(current: Signal, threshold: float, layer: Layer) -> Spikes:
    """The spikes of a population that integrates `current`."""
    steps = current.steps or current_steps()
    shape = current.value.shape
    potential = np.full(shape, threshold / 2, np.float32)
    amount = np.float32(threshold)
    train = np.empty((steps, *shape), bool)
    for step in range(steps):
        potential += current.at(step)
        fired = np.greater_equal(potential, amount, out=train[step, ...])
        np.subtract(potential, amount, out=potential, where=fired)
    spikes = Spikes(train, threshold, layer, current.depth + 1)
    note_neurons(spikes)
    return spikes


def balanced(current: Array) -> float:
    """A threshold that the strongest mean current just reaches in every step."""
    largest = float(current.max(initial=0.0))
    if largest > 0:
        return largest
    return float(np.abs(current).max(initial=0.0)) or 1.0  # all silent; nothing small may set them off


@kernels.register(ops.relu, when=in_float32)
def relu(x: Signal) -> Signal:
    """Neurons whose threshold suits the batch."""
    return fire(x, balanced(_finite("relu", x)), _layer("relu", x))


@kernels.register(ops.relu6, when=in_float32)
def relu6(x: Signal) -> Signal:
    """Neurons whose threshold suits the batch, and is 6 at most."""
    return fire(x, min(6.0, balanced(_finite("relu6", x))), _layer("relu6", x))


def _from_zero(x: Spec, *, low: float, high: float) -> bool:
    return in_float32(x) and low == 0 and high > 0


@kernels.register(ops.hardtanh, when=_from_zero)
def hardtanh(x: Signal, *, low: float, high: float) -> Signal:
    """Neurons whose threshold is given, so that a sample gives the same in every batch."""
    _finite("hardtanh", x)
    return fire(x, high, _layer("hardtanh", x))


def _layer(kind: str, x: Signal) -> Layer:
    """The neurons of the layer whose synapses the current comes from."""
    return x.layer or Layer(kind)


def _finite(who: str, x: Signal) -> Array:
    mean = x.value
    if not np.isfinite(mean).all():
        raise DeviceError(
            f"{who} on spiking needs finite numbers, which neurons can integrate, got {mean[~np.isfinite(mean)][0]}: "
            "find where it comes from (on the CPU), or compute this op there, x.cpu()"
        )
    return mean
